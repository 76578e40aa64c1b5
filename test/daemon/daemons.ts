import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import { createWorld, type World } from '../operation/world.js'
import { programPath } from '../support/cli.js'
import type { Teardown } from '../support/temp.js'

/** A daemon in a process of its own. */
export interface Daemon {
  child: ChildProcess
  pid: number
  /** Lines of its log, parsed. */
  log: Record<string, unknown>[]
  /** Resolves to the first line, also one that is there already, that `matches`. */
  line(matches: (line: Record<string, unknown>) => boolean, timeout?: number): Promise<Record<string, unknown>>
  /** The line with this message. */
  said(message: string, timeout?: number): Promise<Record<string, unknown>>
  /** `http://address:port`, once it listens. */
  url(): Promise<string>
  get(path: string): Promise<{ status: number; text: string }>
  /** Sends a signal and waits for the end; gives the exit code. */
  end(signal?: NodeJS.Signals): Promise<number | null>
}

/** Calls `look` until it gives something. */
export const eventually = async <T>(what: string, look: () => Promise<T | undefined | false>, timeout = 60_000): Promise<T> => {
  for (const until = Date.now() + timeout; ; await wait(100)) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (Date.now() > until) throw new Error(`in vain: ${what}`)
  }
}

/** Starts a daemon with `env` alone, on a free port and without backups of the catalog unless told otherwise; it is killed when the test is over. */
export const startDaemon = (t: Teardown, env: Record<string, string>): Daemon => {
  const child = spawn(process.execPath, [programPath(), 'daemon'], {
    env: { PATH: process.env['PATH'] ?? '', BACKUPD_LISTEN: '127.0.0.1:0', BACKUPD_CATALOG_BACKUP: 'off', ...env }, stdio: ['ignore', 'pipe', 'pipe'],
  })
  const log: Record<string, unknown>[] = []
  let rest = ''
  let errors = ''
  child.stdout.on('data', (block: Buffer) => {
    const lines = (rest + block.toString('utf8')).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) log.push(JSON.parse(line) as Record<string, unknown>)
  })
  child.stderr.on('data', (block: Buffer) => (errors += block.toString('utf8')))
  const over = (): boolean => child.exitCode !== null || child.signalCode !== null
  t.teardown(async () => {
    if (over()) return
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
  })
  const daemon: Daemon = {
    child, pid: child.pid ?? 0, log,
    line: (matches, timeout = 60_000) => eventually('a line of the log', async () => {
      const found = log.find(matches)
      if (found === undefined && over()) throw new Error(`the daemon has ended (${child.exitCode ?? child.signalCode}): ${JSON.stringify(log.slice(-5))} ${errors}`)
      return found
    }, timeout).catch((error: Error) => {
      throw new Error(`${error.message}; the log: ${log.map((line) => JSON.stringify(line)).join('\n')}\n${errors}`)
    }),
    said: (message, timeout) => daemon.line(({ msg }) => msg === message, timeout),
    url: async () => `http://${String((await daemon.said('listening'))['address'])}`,
    get: async (path) => {
      const response = await fetch(`${await daemon.url()}${path}`, { headers: { connection: 'close' }, signal: AbortSignal.timeout(10_000) })
      return { status: response.status, text: await response.text() }
    },
    end: async (signal = 'SIGTERM') => {
      if (!over()) {
        const gone = once(child, 'exit')
        child.kill(signal)
        await gone
      }
      if (child.exitCode === null && signal !== 'SIGKILL') throw new Error(`the daemon was ended by ${child.signalCode}; its log: ${log.map((line) => JSON.stringify(line)).join('\n')}\n${errors}`)
      return child.exitCode
    },
  }
  return daemon
}

/** A world with unencrypted backups, and the environment in which daemons work on it. */
export interface DaemonWorld extends World {
  env: Record<string, string>
  daemon(env?: Record<string, string>): Daemon
  /** Rows of a query on the catalog. */
  rows(text: string): Promise<Record<string, unknown>[]>
  /** Adds a schedule by plain SQL, as the other application does. */
  insertSchedule(name: string, cron: string, more?: Record<string, string>): Promise<number>
}

export const daemonWorld = async (t: Teardown): Promise<DaemonWorld> => {
  const world = await createWorld(t, { encrypt: false })
  await world.sql('shop', `CREATE TABLE noise AS SELECT i, string_agg(decode(md5(i::text || j::text), 'hex'), '') AS data
    FROM generate_series(1, 256) i, generate_series(1, 4096) j GROUP BY i`)
  const env = { BACKUPD_STATE_DIR: world.stateDir, BACKUPD_DATABASE_URL: world.server.url('catalog'), BACKUPD_SOURCE_URL: world.server.url('shop') }
  return {
    ...world, env,
    daemon: (more = {}) => startDaemon(t, { ...env, ...more }),
    rows: (text) => world.sql('catalog', text),
    insertSchedule: async (name, cron, more = {}) => {
      const columns: Record<string, string> = {
        name: `'${name}'`, cron_expression: `'${cron}'`, timezone: `'UTC'`, backup_type: `'database_only'`, storage_backend_id: '(SELECT min(id) FROM storage_backend_configs)',
        compression_type: `'gzip'`, encrypt_backup: 'false', verify_integrity: 'false', retention_days: '7', max_parallel_uploads: '1', is_active: 'true', created_at: 'now()', ...more,
      }
      const [row] = await world.sql('catalog', `INSERT INTO backup_schedules (${Object.keys(columns).join(', ')}) VALUES (${Object.values(columns).join(', ')}) RETURNING id`)
      return Number(row?.['id'])
    },
  }
}

/** For a schedule whose backups shall take long: 16 MB of noise at 1 Mbit/s. */
export const slow = { bandwidth_limit_mbps: '1', compression_type: `'none'` }
