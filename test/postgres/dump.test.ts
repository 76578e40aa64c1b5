import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { promisify } from 'node:util'
import t from 'tap'
import { parseConnection } from '../../src/postgres/connection.js'
import { describeDatabase } from '../../src/postgres/describe.js'
import { dumpDatabase, dumpGlobals } from '../../src/postgres/dump.js'
import { restoreGlobals, splitStatements } from '../../src/postgres/globals.js'
import { withSql } from '../../src/postgres/sql.js'
import { chooseTools, findTools } from '../../src/postgres/tools.js'
import { startPostgres } from '../support/postgres-server.js'
import { connectTo } from '../support/sql.js'
import { tempDir } from '../support/temp.js'

const run = promisify(execFile)
const { signal } = new AbortController()
const tools = chooseTools(await findTools(), 15)

const textOf = async (source: AsyncIterable<Uint8Array>): Promise<string> => {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

const childrenOf = async (name: string): Promise<number[]> => {
  const { stdout } = await run('ps', ['-o', 'pid=,args=', '--ppid', String(process.pid)])
  return stdout.split('\n').filter((line) => line.includes(name)).map((line) => Number(line.trim().split(' ')[0]))
}

t.test('a dump that is cut off anywhere is never a whole one', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const sql = connectTo(server.url())
  await sql`CREATE TABLE wide AS SELECT i, repeat(md5(i::text), 30) AS text FROM generate_series(1, 60000) i`
  const connection = parseConnection(server.url())
  const temporary = tempDir(t)
  process.env['TMPDIR'] = temporary
  t.teardown(() => delete process.env['TMPDIR'])
  // At a third of the stream, where the dump is blocked because nobody reads on.
  const cutBy = async (cut: () => Promise<unknown>, stop = signal): Promise<{ size: number; error: unknown; arguments: string }> => {
    let size = 0
    let shown = ''
    try {
      for await (const chunk of dumpDatabase({ connection, tools, signal: stop })) {
        const first = size < 20_000_000
        size += chunk.length
        if (first && size >= 20_000_000) {
          const pids = await childrenOf('pg_dump')
          shown = (await run('ps', ['-o', 'args=', '-p', pids.join(',')])).stdout
          await cut()
        }
      }
      return { size, error: undefined, arguments: shown }
    } catch (error) {
      return { size, error, arguments: shown }
    }
  }
  const whole = await cutBy(() => Promise.resolve())
  t.equal(whole.error, undefined)
  t.ok(whole.size > 55_000_000)
  t.match(whole.arguments, /pg_dump --format=custom/)
  t.notMatch(whole.arguments, server.password)

  const killed = await cutBy(async () => { for (const pid of await childrenOf('pg_dump')) process.kill(pid, 'SIGKILL') })
  t.match(killed.error, { code: 'dump.failed', retryable: true, message: /SIGKILL/ })
  const terminated = await cutBy(() => sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND pid <> pg_backend_pid()`)
  t.match(terminated.error, { code: 'dump.failed', retryable: true, details: { exit_code: 1 } })
  const stop = new AbortController()
  const aborted = await cutBy(() => Promise.resolve(stop.abort()), stop.signal)
  t.match(aborted.error, { code: 'cancelled' })
  await sql.end()
  const gone = await cutBy(() => server.kill9())
  t.match(gone.error, { code: 'dump.failed', retryable: true })
  for (const { size } of [killed, terminated, aborted, gone]) t.ok(size < whole.size)
  t.same(await childrenOf('pg_dump'), [])
  t.same(readdirSync(temporary), [])
  t.match((await cutBy(() => Promise.resolve())).error, { code: 'dump.failed', retryable: true, message: /refused/ })
})

t.test('globals with passwords for a superuser, without for others', async (t) => {
  const [server, other] = await Promise.all([startPostgres(), startPostgres()])
  t.teardown(() => Promise.all([server.stop(), other.stop()]))
  const sql = connectTo(server.url())
  await sql.unsafe(`
    CREATE ROLE "O'Brien ""x""" LOGIN PASSWORD 'secret-of-obrien'; CREATE ROLE team; GRANT team TO "O'Brien ""x""";
    COMMENT ON ROLE team IS 'several
-- lines; with ''quotes''
'; ALTER ROLE team SET search_path = 'a;b', 'c"d'; ALTER ROLE team CONNECTION LIMIT 3; CREATE ROLE shared CONNECTION LIMIT 1; CREATE ROLE plain LOGIN PASSWORD 'plain-password'`).simple()
  await sql.end()
  const superuser = parseConnection(server.url())
  const full = await textOf(dumpGlobals({ connection: superuser, tools, withPasswords: true, signal }))
  t.match(full, /SCRAM-SHA-256/)
  const plain = parseConnection(server.url('postgres', 'plain', 'plain-password'))
  t.match(await withSql(plain, { signal }, describeDatabase), { superuser: false })
  await t.rejects(textOf(dumpGlobals({ connection: plain, tools, withPasswords: true, signal })), { code: 'dump.failed', message: /permission denied/ })
  const bare = await textOf(dumpGlobals({ connection: plain, tools, withPasswords: false, signal }))
  t.match(bare, /CREATE ROLE team/)
  t.notMatch(bare, /SCRAM/)

  const target = connectTo(other.url())
  await target`CREATE ROLE shared CONNECTION LIMIT 9`
  const report = await restoreGlobals(parseConnection(other.url('no such database')), dumpGlobals({ connection: superuser, tools, withPasswords: true, signal }), signal)
  t.same(report.failed, [])
  t.same(report.skipped, ['ROLE postgres', 'ROLE shared'])
  t.same(await target`SELECT rolname, rolconnlimit FROM pg_roles WHERE rolname IN ('shared', 'team') ORDER BY 1`, [
    { rolname: 'shared', rolconnlimit: 9 }, { rolname: 'team', rolconnlimit: 3 },
  ])
  const [role] = await target`SELECT shobj_description(oid, 'pg_authid') AS comment, rolconfig::text FROM pg_roles WHERE rolname = 'team'`
  t.match(role, { comment: "several\n-- lines; with 'quotes'\n", rolconfig: /a;b/ })
  await target.end()
  // The password came along, so its owner can log in.
  const owner = connectTo(other.url('postgres', 'O\'Brien "x"', 'secret-of-obrien'))
  t.same(await owner`SELECT pg_has_role('team', 'member') AS member`, [{ member: true }])
  await owner.end()
  const again = await restoreGlobals(parseConnection(other.url()), dumpGlobals({ connection: superuser, tools, withPasswords: true, signal }), signal)
  t.equal(again.skipped.length, 5)
  const denied = await restoreGlobals(parseConnection(other.url('postgres', 'plain', 'plain-password')), [Buffer.from("CREATE ROLE late PASSWORD 'hidden-one';\n")] as unknown as AsyncIterable<Uint8Array>, signal)
  t.same(denied.failed, [{ what: 'CREATE ROLE late', reason: 'permission denied to create role' }])
  t.same(splitStatements("SELECT 'a;\n';\n\n-- no; \nSELECT \"b;'\n\";\n\\restrict x\n"), ["SELECT 'a;\n';", 'SELECT "b;\'\n";'])
})
