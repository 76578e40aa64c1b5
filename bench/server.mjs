// A throw-away PostgreSQL of the installed packages, for benchmarks that need more of it than the embedded one gives: many
// connections, pg_stat_statements, and being killed.
import { execFileSync, spawn } from 'node:child_process'
import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import postgres from 'postgres'

const newest = () => {
  const versions = readdirSync('/usr/lib/postgresql').map(Number).filter((major) => major <= 15).sort((a, b) => b - a)
  if (versions.length === 0) throw new Error('no PostgreSQL server is installed: apt-get install postgresql-15')
  return `/usr/lib/postgresql/${versions[0]}/bin`
}

const freePort = () => new Promise((resolve) => {
  const server = createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address()
    server.close(() => resolve(port))
  })
})

const account = () => {
  if (process.getuid() !== 0) return {}
  const [, , uid, gid] = readFileSync('/etc/passwd', 'utf8').split('\n').find((line) => line.startsWith('nobody:')).split(':')
  return { uid: Number(uid), gid: Number(gid) }
}

/** Starts a server with `settings`; `url(database)`, `sql(database)`, `kill9()`, `start()` and `stop()`. */
export const startServer = async (settings = {}) => {
  const home = mkdtempSync(join(tmpdir(), 'backupd-bench-pg-'))
  const who = account()
  if (who.uid !== undefined) chownSync(home, who.uid, who.gid)
  const bin = newest()
  const data = join(home, 'data')
  execFileSync(join(bin, 'initdb'), ['-D', data, '-U', 'postgres', '-A', 'trust', '-N', '--locale=C.UTF-8', '-E', 'UTF8'], { ...who, cwd: home, stdio: 'ignore' })
  const port = await freePort()
  const all = {
    listen_addresses: '127.0.0.1', unix_socket_directories: home, port, fsync: 'off', max_connections: 100, log_min_messages: 'warning', shared_buffers: '128MB', ...settings,
  }
  const url = (database = 'postgres') => `postgres://postgres@127.0.0.1:${port}/${database}`
  const open = (database, max = 1) => postgres(url(database), { max, onnotice: () => undefined, fetch_types: false })
  let child
  const start = async () => {
    child = spawn(join(bin, 'postgres'), ['-D', data, ...Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`])], { ...who, cwd: home, stdio: 'ignore' })
    for (;;) {
      const sql = open()
      try {
        await sql`SELECT 1`
        return
      } catch {
        await wait(50)
      } finally {
        await sql.end({ timeout: 1 })
      }
    }
  }
  const end = async (signal) => {
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signal)
    await gone
  }
  await start()
  return {
    url, open, start, home,
    query: async (database, text) => {
      const sql = open(database)
      try {
        return await sql.unsafe(text)
      } finally {
        await sql.end({ timeout: 1 })
      }
    },
    kill9: () => end('SIGKILL'),
    /** For a signal's handler, which cannot wait. */
    endNow: () => {
      child.kill('SIGQUIT')
      rmSync(home, { recursive: true, force: true })
    },
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) await end('SIGQUIT')
      rmSync(home, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}
