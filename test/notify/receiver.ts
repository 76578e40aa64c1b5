import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Teardown } from '../support/temp.js'

/** A request as it came. */
export interface Received {
  path: string
  headers: IncomingHttpHeaders
  body: string
  at: number
}

/** How a receiver answers a request. */
export type Answer = number | { status: number; headers?: Record<string, string>; body?: string } | 'never' | 'drip' | 'reset'

export interface Receiver {
  url: string
  received: Received[]
  /** The answers to the next requests; the last one stays. Default 200. */
  answers: Answer[]
  /** Bodies, parsed. */
  json(): Record<string, unknown>[]
}

const reply = (response: ServerResponse, answer: Answer): void => {
  if (answer === 'never') return
  if (answer === 'reset') return void response.socket?.resetAndDestroy()
  if (answer === 'drip') {
    // One byte from time to time: a limit on silence alone would wait for ever.
    const timer = setInterval(() => response.write('.'), 100)
    response.on('close', () => clearInterval(timer))
    return
  }
  const { status, headers = {}, body = 'ok' } = typeof answer === 'number' ? { status: answer } : answer
  response.writeHead(status, headers).end(body)
}

/** An HTTP server on a free port of this machine that records what it gets. */
export const startReceiver = async (t: Teardown): Promise<Receiver> => {
  const received: Received[] = []
  const receiver: Receiver = { url: '', received, answers: [], json: () => received.map(({ body }) => JSON.parse(body) as Record<string, unknown>) }
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      received.push({ path: request.url ?? '', headers: request.headers, body: Buffer.concat(chunks).toString('utf8'), at: Date.now() })
      reply(response, (receiver.answers.length > 1 ? receiver.answers.shift() : receiver.answers[0]) ?? 200)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  receiver.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return receiver
}

/** A port of this machine at which nobody listens. */
export const deadPort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
