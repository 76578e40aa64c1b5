import { throwIfAborted, type BackupdError } from '../errors.js'
import type { Log } from '../log.js'
import { asker, type Ask } from './asking.js'
import { gcsAuthFailure, gcsFailure, gcsRefusal } from './gcs-failure.js'
import { createHttp, textOf, type HttpAnswer, type HttpRequest } from './http.js'
import { storageError } from './failure.js'
import { silence } from './resume.js'
import { within } from './wait.js'

/** What of google-auth-library is used. */
export interface Authorizer {
  getRequestHeaders(url?: string): Promise<Record<string, string>>
}

export interface GcsObject {
  name: string
  /** A decimal number: 64 bits in JSON. */
  size?: string
  updated?: string
  generation?: string
  crc32c?: string
  metadata?: Record<string, string>
}

/** Requests to Google Cloud Storage, signed in, with one retry policy. `path` starts with a slash. */
export interface GcsClient {
  readonly bucket: string
  readonly log: Log
  readonly retryFor: number
  url(path: string, query?: Record<string, string | undefined>): string
  /** One attempt; an answer that is not among `accept` (default 2xx) is thrown as one of our errors. */
  once(what: string, request: HttpRequest, accept?: (status: number) => boolean): Promise<HttpAnswer>
  /** With retries, to the end of the answer. */
  ask(what: string, request: HttpRequest, accept?: (status: number) => boolean): Promise<{ answer: HttpAnswer; text: string }>
  /** Runs `action` with retries. */
  again: Ask
  close(): void
}

const success = (status: number): boolean => status >= 200 && status < 300

/** `authorizer` undefined: nothing is signed, for a double or a public endpoint. */
export const createGcsClient = ({ endpoint, bucket, authorizer, log, retryFor }: {
  endpoint: string
  bucket: string
  authorizer: Authorizer | undefined
  log: Log
  retryFor: number
}): GcsClient => {
  const http = createHttp()

  const signIn = async (url: string, signal: AbortSignal): Promise<Record<string, string>> => {
    if (authorizer === undefined) return {}
    const timeout = (): BackupdError => storageError('storage.timeout', `signing in to Google Cloud: no answer for ${silence.limit / 1000} s`)
    try {
      return { ...(await within(authorizer.getRequestHeaders(url), { signal, ms: silence.limit, timeout })) }
    } catch (error) {
      throwIfAborted(signal)
      throw gcsAuthFailure(error)
    }
  }

  const once: GcsClient['once'] = async (what, request, accept = success) => {
    const signed = await signIn(request.url, request.signal)
    let answer: HttpAnswer
    try {
      answer = await http.send({ ...request, headers: { ...signed, ...request.headers } })
      if (accept(answer.status)) return answer
      throw await gcsRefusal(answer, what)
    } catch (error) {
      throwIfAborted(request.signal)
      throw gcsFailure(error, what)
    }
  }

  const again = asker(gcsFailure, { retryFor, log })

  return {
    bucket,
    log,
    retryFor,
    url: (path, query = {}) => {
      const given = Object.entries(query).filter((entry): entry is [string, string] => entry[1] !== undefined)
      return `${endpoint}${path}${given.length === 0 ? '' : `?${new URLSearchParams(given).toString()}`}`
    },
    once,
    again,
    ask: (what, request, accept) => again(what, request.signal, async () => {
      const answer = await once(what, request, accept)
      return { answer, text: await textOf(answer) }
    }),
    close: () => http.close(),
  }
}
