import { setMaxListeners } from 'node:events'
import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { abortError } from '../errors.js'
import { createAgents } from './agents.js'
import { storageError } from './failure.js'
import { silence } from './resume.js'

export interface HttpRequest {
  method: 'GET' | 'PUT' | 'POST' | 'DELETE' | 'HEAD'
  url: string
  headers?: Record<string, string>
  body?: Buffer
  /** Also ends the body of the answer. */
  signal: AbortSignal
}

export interface HttpAnswer {
  status: number
  headers: IncomingHttpHeaders
  body: IncomingMessage
}

export interface HttpClient {
  /** Resolves with the head of the answer whatever its status. A server that is silent for `silence.limit` is a `storage.timeout`. */
  send(request: HttpRequest): Promise<HttpAnswer>
  close(): void
}

// Far above any error document; the rest of a longer answer is of no use to us.
const mostText = 4 * 1024 * 1024

/** The text of an answer; fails when it breaks off. */
export const textOf = async ({ body }: HttpAnswer): Promise<string> => {
  const blocks: Buffer[] = []
  let size = 0
  for await (const block of body as AsyncIterable<Buffer>) {
    size += block.length
    if (size <= mostText) blocks.push(block)
  }
  if (!body.complete) throw storageError('storage.connection_lost', 'the answer broke off')
  return Buffer.concat(blocks).toString()
}

/** HTTP/1.1 with connections kept alive. Node's own client, because of its time-outs by silence instead of by total time. */
export const createHttp = (): HttpClient => {
  const { plain, secure } = createAgents()
  return {
    send: ({ method, url, headers = {}, body, signal }) =>
      new Promise((resolve, reject) => {
        const https = url.startsWith('https:')
        const length = body === undefined ? (method === 'PUT' || method === 'POST' ? { 'content-length': '0' } : {}) : { 'content-length': String(body.length) }
        const request = (https ? httpsRequest : httpRequest)(url, { method, headers: { ...headers, ...length }, agent: https ? secure : plain })
        const onAbort = (): void => void request.destroy(abortError(signal))
        // Covers name resolution, connecting and the TLS handshake too, which the socket's own time-out does not.
        const connecting = setTimeout(() => request.destroy(silent()), silence.limit)
        const silent = (): Error => storageError('storage.timeout', `${new URL(url).host} was silent for ${silence.limit / 1000} s`)
        // Every request in flight listens, and those that broke off until they are closed; Node takes more than ten for a leak.
        setMaxListeners(0, signal)
        signal.addEventListener('abort', onAbort, { once: true })
        request.setTimeout(silence.limit, () => request.destroy(silent()))
        request.on('socket', (socket) => {
          const ready = (): void => clearTimeout(connecting)
          if (socket.connecting) socket.once(https ? 'secureConnect' : 'connect', ready)
          else ready()
        })
        request.on('error', (error) => {
          clearTimeout(connecting)
          reject(error)
        })
        request.on('close', () => {
          clearTimeout(connecting)
          signal.removeEventListener('abort', onAbort)
        })
        request.on('response', (answer) => {
          // Whoever reads it gets the error from the iterator; without a listener here it would end the process when nobody reads.
          answer.on('error', () => undefined)
          resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: answer })
        })
        if (signal.aborted) onAbort()
        else request.end(body)
      }),
    close: () => {
      plain.destroy()
      secure.destroy()
    },
  }
}
