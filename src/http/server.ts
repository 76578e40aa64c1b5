import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { BackupdError, messageOf } from '../errors.js'
import type { Log } from '../log.js'
import { redact } from '../secret.js'
import { healthDocument } from './health.js'
import type { Monitor } from './monitor.js'

/** A client that is slower than this is cut off. Milliseconds. */
const PATIENCE = 5_000
const MOST_CONNECTIONS = 64
const MOST_HEADER_BYTES = 8_192

/** The routes, without a server. */
export const routes = (monitor: Monitor, log: Log): Hono => {
  const app = new Hono()
  app.use(async (c, next) => {
    const known = c.req.method === 'GET' || c.req.method === 'HEAD'
    if (known) await next()
    else c.res = c.text('method not allowed\n', 405, { Allow: 'GET, HEAD' })
    c.header('Cache-Control', 'no-store')
    c.header('X-Content-Type-Options', 'nosniff')
  })
  app.get('/livez', (c) => (monitor.live() ? c.text('ok\n') : c.text('not live\n', 503)))
  app.get('/readyz', (c) => (monitor.ready() ? c.text('ok\n') : c.text('not ready\n', 503)))
  app.get('/health', (c) => {
    const document = healthDocument(monitor.health(), performance.now())
    return c.body(`${redact(JSON.stringify(document, null, 2))}\n`, document.status === 'critical' ? 503 : 200, { 'Content-Type': 'application/json; charset=utf-8' })
  })
  app.get('/metrics', (c) => c.body(redact(monitor.metrics()), 200, { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' }))
  app.notFound((c) => c.text('not found\n', 404))
  app.onError((error, c) => {
    log.error({ path: c.req.path, error: messageOf(error) }, 'a request could not be answered')
    return c.text('error\n', 500)
  })
  return app
}

export interface HttpServer {
  /** The address that is listened on, such as `127.0.0.1:8470`. */
  address: string
  close(): Promise<void>
}

const listening = (server: Server, { host, port }: { host: string; port: number }): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'EADDRINUSE' ? 'the port is in use' : error.code === 'EADDRNOTAVAIL' ? 'this machine has no such address' : error.code === 'EACCES' ? 'a port below 1024 needs a right that the process does not have' : messageOf(error)
      reject(new BackupdError('http.listen', `cannot listen on ${host}:${port}: ${why}`, {
        kind: 'configuration', cause: error, hint: 'Set BACKUPD_LISTEN to a free address and port; another daemon may be running.', details: { host, port },
      }))
    })
    server.listen(port, host, resolve)
  })

/** Listens at `listen` (port 0 takes a free one). Fails with `http.listen` (exit code 4). */
export const startHttp = async (listen: { host: string; port: number }, monitor: Monitor, log: Log): Promise<HttpServer> => {
  const server = createServer({
    maxHeaderSize: MOST_HEADER_BYTES, headersTimeout: PATIENCE, requestTimeout: PATIENCE, keepAliveTimeout: PATIENCE, connectionsCheckingInterval: 1_000,
  }, getRequestListener(routes(monitor, log).fetch))
  server.maxConnections = MOST_CONNECTIONS
  server.maxRequestsPerSocket = 100
  // Covers what the others do not: a client that does not read its answer.
  server.setTimeout(2 * PATIENCE, (socket) => void socket.destroy())
  await listening(server, listen)
  server.on('error', (error) => log.warn({ error: messageOf(error) }, 'the HTTP server has a problem'))
  const { address, family, port } = server.address() as AddressInfo
  return {
    address: `${family === 'IPv6' ? `[${address}]` : address}:${port}`,
    close: () => new Promise((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    }),
  }
}
