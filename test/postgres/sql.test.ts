import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { describeConnection, parseConnection, type Connection } from '../../src/postgres/connection.js'
import { toolEnvironment } from '../../src/postgres/environment.js'
import { openSql, withSql } from '../../src/postgres/sql.js'
import { findTools } from '../../src/postgres/tools.js'
import { startPostgres } from '../support/postgres-server.js'
import { tempDir, type Teardown } from '../support/temp.js'

const run = promisify(execFile)
const { signal } = new AbortController()

const certificates = async (t: Teardown) => {
  const dir = tempDir(t)
  const at = (name: string) => join(dir, name)
  const openssl = (...args: string[]) => run('openssl', args, { cwd: dir })
  await openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'ca.key', '-out', 'ca.crt', '-days', '2', '-subj', '/CN=test ca')
  await openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=localhost')
  await openssl('x509', '-req', '-in', 'server.csr', '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-out', 'server.crt', '-days', '2')
  return { ca: at('ca.crt'), other: at('server.crt'), files: { 'server.crt': readFileSync(at('server.crt'), 'utf8'), 'server.key': readFileSync(at('server.key'), 'utf8') } }
}

// What libpq itself makes of the same connection, as the standard.
const viaPsql = async (connection: Connection): Promise<string> => {
  const psql = (await findTools())[0]?.psql ?? 'psql'
  const { env, dispose } = await toolEnvironment(connection)
  try {
    const { stdout } = await run(psql, ['-XAtw', '-c', 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'], { env })
    return stdout.trim() === 't' ? 'encrypted' : 'plain'
  } catch {
    return 'refused'
  } finally {
    await dispose()
  }
}

const viaDriver = async (connection: Connection): Promise<string> => {
  try {
    const rows = await withSql(connection, { signal }, (sql) => sql`SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()`)
    return rows[0]?.['ssl'] === true ? 'encrypted' : 'plain'
  } catch (error) {
    t.match((error as { code: string }).code, /^source\.(tls|auth)$/, describeConnection(connection))
    return 'refused'
  }
}

t.test('sslmode means what it means to libpq', async (t) => {
  const { ca, other, files } = await certificates(t)
  const ssl = { ssl: 'on', listen_addresses: 'localhost' }
  const hba = ['local all all trust']
  const servers = await Promise.all([
    startPostgres({ settings: ssl, files, hba }),
    startPostgres(),
    startPostgres({ settings: ssl, files, hba: ['hostnossl all all all reject'] }),
    startPostgres({ settings: ssl, files, hba: ['hostssl all all all reject'] }),
  ])
  t.teardown(() => Promise.all(servers.map((server) => server.stop())))
  const queries = ['', 'sslmode=disable', 'sslmode=allow', 'sslmode=prefer', 'sslmode=require', `sslmode=require&sslrootcert=${ca}`,
    `sslmode=require&sslrootcert=${other}`, `sslmode=verify-ca&sslrootcert=${ca}`, `sslmode=verify-ca&sslrootcert=${other}`, 'sslmode=verify-ca',
    `sslmode=verify-full&sslrootcert=${ca}`, 'sslmode=verify-full&sslrootcert=/nonexistent']
  const seen = new Set<string>()
  for (const [index, server] of servers.entries()) {
    for (const host of ['localhost', '127.0.0.1', server.socketDir]) {
      for (const query of queries) {
        const connection = { ...parseConnection(`${server.url()}?${query}`), host }
        const expected = await viaPsql(connection)
        t.equal(await viaDriver(connection), expected, `server ${index}, ${host}, ${query}`)
        seen.add(expected)
      }
    }
  }
  t.same([...seen].sort(), ['encrypted', 'plain', 'refused'])
})

t.test('what keeps a connection from being made has a code', async (t) => {
  const server = await startPostgres({ major: 14 })
  t.teardown(() => server.stop())
  const code = async (url: string, expected: string, retryable: boolean) => {
    await t.rejects(openSql(parseConnection(url), { signal }), { code: expected, retryable }, url.slice(-40))
  }
  await code(server.url('postgres', 'postgres', 'wrong'), 'source.auth', false)
  await code(server.url('postgres', 'nobody here'), 'source.auth', false)
  await code(server.url('not there'), 'source.no_database', false)
  await code(`${server.url()}?sslmode=require`, 'source.tls', false)
  await code('postgres://me@host.invalid/db', 'source.unreachable', true)
  await code('postgres://me@/db?host=/nonexistent', 'source.unreachable', true)

  // Takes connections and hangs up at once, which the driver alone would answer by trying for ever; and one that says nothing.
  for (const [name, hangsUp] of [['hangs up', true], ['says nothing', false]] as const) {
    const deaf = createServer((socket) => void (hangsUp ? socket.destroy() : socket.on('error', () => undefined)))
    await new Promise<void>((resolve) => void deaf.listen(0, '127.0.0.1', resolve))
    const { port } = deaf.address() as AddressInfo
    const started = Date.now()
    await code(`postgres://me@127.0.0.1:${port}/db?connect_timeout=2&sslmode=disable`, 'source.unreachable', true)
    await code(`postgres://me@127.0.0.1:${port}/db?connect_timeout=2`, 'source.unreachable', true)
    t.ok(Date.now() - started < 9_000, name)
    deaf.close()
  }
})

t.test('an abort ends a statement, and a lost server is an error', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const connection = parseConnection(server.url())
  const stop = new AbortController()
  const sleeping = withSql(connection, { signal: stop.signal }, (sql) => sql`SELECT pg_sleep(60)`)
  setTimeout(() => stop.abort(), 300)
  await t.rejects(sleeping, { code: 'cancelled' })
  await t.rejects(openSql(connection, { signal: AbortSignal.abort() }), { code: 'cancelled' })
  const lost = withSql(connection, { signal }, (sql) => sql`SELECT pg_sleep(60)`)
  setTimeout(() => void server.kill9(), 300)
  await t.rejects(lost, { code: 'source.unreachable', retryable: true })
})
