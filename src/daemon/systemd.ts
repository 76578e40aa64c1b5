import { spawn } from 'node:child_process'
import { messageOf } from '../errors.js'
import type { Log } from '../log.js'

/** A message that takes longer is given up. Milliseconds. */
const TIMEOUT = 5_000

/** Talks to the service manager; says nothing where there is none. */
export interface ServiceManager {
  /** Sends variables of sd_notify(3), such as `READY=1`, after those sent before. */
  notify(...variables: string[]): Promise<void>
  /** Says that the process is alive as often as systemd wants to hear it, as long as `live` says so. */
  keepAlive(live: () => boolean): void
  stop(): void
}

/** Milliseconds between two signs of life, when systemd asked this process for them. */
const watchdogInterval = (env: NodeJS.ProcessEnv): number | undefined => {
  const limit = Number(env['WATCHDOG_USEC'] ?? 0) / 1000
  const pid = env['WATCHDOG_PID']
  return limit > 0 && (pid === undefined || Number(pid) === process.pid) ? limit / 2 : undefined
}

// Node cannot send datagrams to a Unix socket; where systemd is, its own program is too, which also waits until the message was taken.
const send = (socket: string, variables: readonly string[]): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn('systemd-notify', variables, { stdio: 'ignore', timeout: TIMEOUT, env: { PATH: process.env['PATH'], NOTIFY_SOCKET: socket } })
    child.once('error', reject)
    child.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`systemd-notify ended with ${code ?? 'a signal'}`))))
  })

/** The service manager that `env` names in NOTIFY_SOCKET and WATCHDOG_USEC. */
export const serviceManager = (env: NodeJS.ProcessEnv, log: Log): ServiceManager => {
  const socket = env['NOTIFY_SOCKET']
  let told = false
  let queue: Promise<void> = Promise.resolve()
  let timer: NodeJS.Timeout | undefined

  const notify = (...variables: string[]): Promise<void> => {
    if (socket === undefined || socket === '') return Promise.resolve()
    queue = queue.then(() => send(socket, variables)).catch((error: unknown) => {
      if (!told) log.warn({ error: messageOf(error) }, 'systemd cannot be told how the daemon is')
      told = true
    })
    return queue
  }
  return {
    notify,
    keepAlive: (live) => {
      const interval = watchdogInterval(env)
      if (interval === undefined || socket === undefined) return
      timer = setInterval(() => {
        if (live()) void notify('WATCHDOG=1')
        else log.error('the daemon does not do its work; systemd is not told otherwise and will restart it')
      }, interval)
    },
    stop: () => clearInterval(timer),
  }
}
