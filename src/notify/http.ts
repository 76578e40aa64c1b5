import { BackupdError, throwIfAborted } from '../errors.js'
import { redact } from '../secret.js'
import { networkFailure, notifyError } from './failure.js'

// Of an answer, what may help to understand a refusal.
const KEPT = 500
const READ_AT_MOST = 16_384

export interface Post {
  url: string
  body: string
  contentType?: string
  headers?: Record<string, string>
  signal: AbortSignal
}

const readSome = async (response: Response): Promise<string> => {
  const chunks: Uint8Array[] = []
  let size = 0
  if (response.body !== null) {
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      chunks.push(chunk)
      size += chunk.length
      if (size >= READ_AT_MOST) break
    }
  }
  return Buffer.concat(chunks).subarray(0, READ_AT_MOST).toString('utf8')
}

/** Milliseconds of a Retry-After header (seconds or a date), or of what chat services say in the body (seconds). */
const retryAfterOf = (response: Response, body: string): number | undefined => {
  const header = response.headers.get('retry-after')
  if (header !== null) {
    const seconds = Number(header)
    if (Number.isFinite(seconds) && seconds >= 0) return Math.ceil(seconds * 1000)
    const date = Date.parse(header)
    if (!Number.isNaN(date)) return Math.max(0, date - Date.now())
  }
  const said = /"retry_after"\s*:\s*(\d+(\.\d+)?)/.exec(body)?.[1]
  return said === undefined ? undefined : Math.ceil(Number(said) * 1000)
}

// Some services repeat what they were called with.
const without = (url: string, text: string): string =>
  url.split(/[/?&=]+/).slice(2).filter((piece) => piece.length >= 6).reduce((clean, piece) => clean.replaceAll(piece, '[secret]'), text)

const refusal = (url: string, response: Response, answer: string): BackupdError => {
  const { host } = new URL(url)
  const body = without(url, answer)
  const { status } = response
  const excerpt = redact(body).replaceAll(/\s+/g, ' ').trim().slice(0, KEPT)
  const said = `${host} answers ${status}${excerpt === '' ? '' : `: ${excerpt}`}`
  if (status === 429) return notifyError('notify.throttled', said, { retryAfter: retryAfterOf(response, body) })
  if (status >= 500 || status === 408 || status === 425) return notifyError('notify.unavailable', said, { retryAfter: retryAfterOf(response, body) })
  if (status === 401 || status === 403) return notifyError('notify.auth', said)
  // A signed or secret message is not carried to where somebody else says.
  if (status >= 300 && status < 400) return notifyError('notify.rejected', `${host} answers ${status}, which is a redirection and is not followed`, { hint: 'Give the URL that it leads to.' })
  return notifyError('notify.rejected', said)
}

/** Sends a POST request and waits for an answer of 200 to 299; what the answer says goes unread. Fails with `notify.*`, naming the host only: a path may be a secret. */
export const post = async ({ url, body, contentType = 'application/json', headers = {}, signal }: Post): Promise<void> => {
  throwIfAborted(signal)
  const { host } = new URL(url)
  try {
    const response = await fetch(url, {
      method: 'POST', body, redirect: 'manual', signal,
      // Alerts are rare; a connection that is kept would only be found broken the next time.
      headers: { 'content-type': contentType, 'user-agent': 'backupd', connection: 'close', ...headers },
    })
    const text = await readSome(response)
    if (response.status < 200 || response.status > 299) throw refusal(url, response, text)
  } catch (error) {
    if (signal.aborted && signal.reason instanceof BackupdError) throw signal.reason
    throw networkFailure(host, error)
  }
}
