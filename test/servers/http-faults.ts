import { createServer, request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'

export interface Seen {
  method: string
  /** Path and query. */
  url: string
  headers: IncomingHttpHeaders
}

/** `lose`: the server does it, but its answer never arrives. An answer of our own: the server never hears of the request. */
export type Fate = 'pass' | 'lose' | { status: number; headers?: Record<string, string>; body?: string }

export interface HttpFaults {
  port: number
  /** Decides about every request from now on. */
  decide(fate: (request: Seen) => Fate): void
  seen: Seen[]
  stop(): Promise<void>
}

/** A reverse proxy in front of an HTTP server on loopback that lies for it. Signatures stay valid, since nothing of a passed request is changed. */
export const startHttpFaults = async (target: number): Promise<HttpFaults> => {
  let decide: (request: Seen) => Fate = () => 'pass'
  const seen: Seen[] = []
  const server = createServer((request, response) => {
    const about = { method: request.method ?? '', url: request.url ?? '', headers: request.headers }
    seen.push(about)
    const fate = decide(about)
    if (typeof fate === 'object') {
      request.resume()
      request.on('end', () => response.writeHead(fate.status, fate.headers).end(fate.body ?? ''))
      return
    }
    const onward = httpRequest({ host: '127.0.0.1', port: target, method: about.method, path: about.url, headers: about.headers }, (answer) => {
      if (fate === 'lose') {
        answer.resume()
        answer.on('end', () => response.destroy())
        return
      }
      response.writeHead(answer.statusCode ?? 500, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    request.pipe(onward)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    decide: (next) => { decide = next },
    seen,
    stop: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
