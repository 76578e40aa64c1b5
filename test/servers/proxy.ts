import { createServer, connect, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

export interface Cut {
  /** `up`: from the client to the server. */
  direction: 'up' | 'down'
  /** Bytes of that direction of one connection that still pass. */
  after: number
  /** `end` closes cleanly, as a server that lies about the length does; `silence` keeps the connection open and passes nothing more either way. */
  how: 'reset' | 'end' | 'silence'
  /** Connections that meet it; the later ones are left alone. Default: all. */
  times?: number
}

/** What goes wrong. May be changed while it runs; counts for connections and bytes from then on. */
export interface Faults {
  cut?: Cut | undefined
  /** Milliseconds that each block is late, in each direction. */
  latency?: number
  /** Bytes per second for each connection and direction. */
  rate?: number
  /** Share of the connections (0 to 1) that are reset at a random byte of their first 200 kB. */
  resets?: number
}

export interface Proxy {
  readonly port: number
  /** Replaces all faults; `{}` heals. */
  set(faults: Faults): void
  /** Connections since the start. */
  connections(): number
  /** Connections that met a cut or a reset since the start. */
  hurt(): number
  stop(): Promise<void>
}

/** A small seeded generator (mulberry32), so that a failing round can be run again. */
export const seeded = (seed: number): (() => number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

const queueLimit = 4 * 1024 * 1024

export interface ProxyOptions {
  /** Of the server. */
  port: number
  host?: string
  seed?: number
  /** Where it listens itself. Default: any free port. */
  listen?: { host: string; port: number }
}

/** A TCP proxy on a free loopback port in front of `port`, that does to connections what networks do. */
export const startProxy = async ({ port: target, host = '127.0.0.1', seed = 1, listen = { host: '127.0.0.1', port: 0 } }: ProxyOptions): Promise<Proxy> => {
  let faults: Faults = {}
  let connections = 0
  let hurt = 0
  const random = seeded(seed)
  const sockets = new Set<Socket>()

  const track = (socket: Socket): void => {
    sockets.add(socket)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => sockets.delete(socket))
  }

  const serve = (client: Socket): void => {
    connections += 1
    track(client)
    const server = connect({ port: target, host, allowHalfOpen: true })
    track(server)
    const resetAt = random() < (faults.resets ?? 0) ? { direction: random() < 0.5 ? 'up' : 'down', after: Math.floor(random() * 200_000) } : undefined
    let dead = false

    const end = (how: Cut['how']): void => {
      if (dead) return
      dead = true
      hurt += 1
      if (how === 'silence') return
      if (how === 'reset') client.resetAndDestroy()
      else client.end()
      server.resetAndDestroy()
    }

    const pass = (from: Socket, to: Socket, direction: 'up' | 'down'): void => {
      let passed = 0
      let queued = 0
      let line: Promise<void> = Promise.resolve()
      let free = 0
      const forward = async (block: Buffer, came: number): Promise<void> => {
        const { latency = 0, rate = Infinity } = faults
        const start = Math.max(came + latency, free)
        free = start + (rate === Infinity ? 0 : (block.length / rate) * 1000)
        if (free - Date.now() >= 1) await delay(free - Date.now())
        if (dead) return
        // A cut is used up by the connection that comes to it: one that carries little must not keep it from the others.
        const { cut } = faults
        const due = cut?.direction === direction && (cut.times ?? Infinity) > 0 && passed + block.length >= cut.after ? cut : undefined
        if (due?.times !== undefined) due.times -= 1
        const limits = [due, resetAt === undefined ? undefined : { how: 'reset' as const, ...resetAt }]
        for (const limit of limits) {
          if (limit === undefined || limit.direction !== direction || passed + block.length < limit.after) continue
          const rest = Math.max(0, limit.after - passed)
          if (rest > 0) await new Promise<void>((done) => to.write(block.subarray(0, rest), () => done()))
          return end(limit.how)
        }
        passed += block.length
        if (!to.destroyed && !to.write(block)) {
          await new Promise<void>((resolve) => {
            const done = (): void => {
              to.off('drain', done).off('close', done)
              resolve()
            }
            to.on('drain', done).on('close', done)
          })
        }
      }
      from.on('data', (block: Buffer) => {
        const came = Date.now()
        queued += block.length
        if (queued > queueLimit) from.pause()
        line = line.then(() => forward(block, came)).then(() => {
          queued -= block.length
          if (queued < queueLimit / 2) from.resume()
        })
      })
      from.on('end', () => void line.then(() => { if (!dead && !to.destroyed) to.end() }))
      from.on('close', () => void line.then(() => { if (!dead && from.errored) to.destroy() }))
    }
    pass(client, server, 'up')
    pass(server, client, 'down')
    server.on('error', () => { if (!dead) client.resetAndDestroy() })
    client.on('close', () => server.destroy())
  }

  const listener = createServer({ allowHalfOpen: true }, serve)
  await new Promise<void>((done, failed) => {
    listener.once('error', failed)
    listener.listen(listen.port, listen.host, done)
  })
  return {
    port: (listener.address() as AddressInfo).port,
    set: (next) => { faults = next },
    connections: () => connections,
    hurt: () => hurt,
    stop: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise<void>((done) => listener.close(() => done()))
    },
  }
}
