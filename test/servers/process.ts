import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { unprivileged, type Account } from '../support/unprivileged.js'

/** A server of a test, on loopback, with a folder of its own. */
export interface Running {
  pid: number
  /** What it printed so far. */
  output(): string
  stop(): Promise<void>
}

export interface Start {
  command: string
  args: string[]
  env?: Record<string, string>
  cwd?: string
  /** Ready once this port takes connections. */
  port: number
  host?: string
  /** Its folder, removed on stop. */
  dir?: string
  /** Keeps the account of this process: a Node child under tap writes into tap's folder. */
  sameAccount?: boolean
  /** Debian package that holds the command, for the message when it is missing. */
  comesFrom: string
}

const alive = new Map<ChildProcess, string | undefined>()
process.once('exit', () => {
  for (const [child, dir] of alive) {
    child.kill('SIGKILL')
    if (dir !== undefined) rmSync(dir, { recursive: true, force: true })
  }
})

/** Whom the servers run as. */
export const account = (): Account => unprivileged() ?? { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }

/** A folder that the account of the servers owns. Started as root they all run as nobody: permissions then count, as they do elsewhere. */
export const serverDir = (name: string): string => {
  const dir = mkdtempSync(join(tmpdir(), `backupd-${name}-`))
  chmodSync(dir, 0o755)
  own(dir)
  return dir
}

/** Gives a file to the account of the servers. */
export const own = (path: string): void => {
  const { uid, gid } = account()
  chownSync(path, uid, gid)
}

const listening = async (port: number, host: string): Promise<Server> => {
  const server = createServer()
  server.listen(port, host)
  await once(server, 'listening')
  return server
}

/** `count` neighbouring ports that nobody uses, below those the kernel hands out; the first one is returned. */
export const freePorts = async (count: number, host = '127.0.0.1'): Promise<number> => {
  for (let attempt = 0; attempt < 50; attempt += 1) {
    const first = 10_000 + Math.floor(Math.random() * (22_000 - count))
    const results = await Promise.allSettled(Array.from({ length: count }, (_, index) => listening(first + index, host)))
    for (const result of results) if (result.status === 'fulfilled') result.value.close()
    if (results.every((result) => result.status === 'fulfilled')) return first
  }
  throw new Error(`no ${count} neighbouring free ports`)
}

export const freePort = (host = '127.0.0.1'): Promise<number> => freePorts(1, host)

const accepts = (port: number, host: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, host)
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })

/** Starts a server and waits until it listens; fails with what it printed when it does not within two minutes. */
export const startServer = async ({ command, args, env = {}, cwd, port, host = '127.0.0.1', dir, sameAccount = false, comesFrom }: Start): Promise<Running> => {
  if (command.startsWith('/') && !existsSync(command)) throw new Error(`${command} is not there: it comes with ${comesFrom} (scripts/test-tools.sh)`)
  const child = spawn(command, args, { env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...env }, ...(cwd === undefined ? {} : { cwd }), ...(sameAccount ? {} : unprivileged()), stdio: ['ignore', 'pipe', 'pipe'] })
  alive.set(child, dir)
  let text = ''
  const keep = (data: Buffer): void => void (text = (text + data.toString()).slice(-20_000))
  child.stdout.on('data', keep)
  child.stderr.on('data', keep)
  let failure: Error | undefined
  child.once('error', (error) => (failure = error))
  const gone = (): boolean => failure !== undefined || child.exitCode !== null || child.signalCode !== null

  const stop = async (): Promise<void> => {
    if (!gone()) {
      const closed = once(child, 'exit')
      child.kill('SIGTERM')
      const late = setTimeout(() => child.kill('SIGKILL'), 3000)
      await closed
      clearTimeout(late)
    }
    alive.delete(child)
    if (dir !== undefined) rmSync(dir, { recursive: true, force: true })
  }

  for (const until = Date.now() + 120_000; !(await accepts(port, host)); await sleep(50)) {
    if (!gone() && Date.now() < until) continue
    await stop()
    throw new Error(`${command} did not start: ${failure?.message ?? text}`)
  }
  return { pid: child.pid as number, output: () => text, stop }
}
