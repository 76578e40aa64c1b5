import { chownSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { parseConnection } from '../../src/postgres/connection.js'
import { describeDatabase } from '../../src/postgres/describe.js'
import { dumpDatabase } from '../../src/postgres/dump.js'
import { selectRelations } from '../../src/postgres/selection.js'
import { holdSnapshot } from '../../src/postgres/snapshot.js'
import { withSql } from '../../src/postgres/sql.js'
import { chooseTools, findTools } from '../../src/postgres/tools.js'
import { startPostgres, type TestServer } from '../support/postgres-server.js'
import { connectTo } from '../support/sql.js'

const { signal } = new AbortController()
const tools = chooseTools(await findTools(), 15)

const fill = `
  CREATE TABLE busy (id int PRIMARY KEY); INSERT INTO busy SELECT generate_series(1, 1000);
  CREATE TABLE "quo""te" (); CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent); INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2), (3);
  CREATE TABLE ranged (id int) PARTITION BY RANGE (id); CREATE TABLE ranged_1 PARTITION OF ranged FOR VALUES FROM (0) TO (10); INSERT INTO ranged VALUES (1);
  CREATE UNLOGGED TABLE unlogged (id int); INSERT INTO unlogged VALUES (1);
  CREATE VIEW seen AS SELECT * FROM busy; CREATE MATERIALIZED VIEW kept AS SELECT * FROM busy; CREATE SEQUENCE counter;
  SELECT lo_create(1), lo_create(2);`

const withTables = async (server: TestServer): Promise<void> => {
  const sql = connectTo(server.url())
  await sql.unsafe(fill).simple()
  await sql.end()
}

const bytesOf = async (source: AsyncIterable<Uint8Array>): Promise<string> => {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(chunk)
  return Buffer.concat(chunks).toString('latin1')
}

t.test('counts and dumps show one moment, whatever is written meanwhile', async (t) => {
  const server = await startPostgres({ settings: { idle_in_transaction_session_timeout: '300', statement_timeout: '20000' } })
  t.teardown(() => server.stop())
  await withTables(server)
  const connection = parseConnection(server.url())
  const snapshot = await holdSnapshot(connection, { signal })
  t.equal(snapshot.notShared, undefined)
  t.equal(snapshot.largeObjects, 2)
  t.same(snapshot.relations.map(({ name, kind }) => `${name} ${kind}`), [
    'busy table', 'child table', 'counter sequence', 'kept materialized view', 'parent table', 'quo"te table', 'ranged partitioned table',
    'ranged_1 table', 'seen view', 'unlogged table',
  ])
  const sql = connectTo(server.url())
  await sql`INSERT INTO busy SELECT generate_series(1001, 3000)`
  const blocked = sql`DROP TABLE child`.execute().catch((error: unknown) => error)
  await sleep(1000)
  const counts = await snapshot.countRows(snapshot.relations, signal)
  t.same(counts.map(({ name, rows }) => [name, rows]), [['busy', 1000], ['child', 2], ['parent', 1], ['quo"te', 0], ['ranged_1', 1], ['unlogged', 1]])
  const dump = await bytesOf(dumpDatabase({ connection, tools, signal, snapshot: snapshot.id }))
  t.ok(dump.includes('1000\n'))
  t.notOk(dump.includes('1001\n'))
  await snapshot.release()
  await blocked
  await t.rejects(snapshot.countRows(snapshot.relations, signal), { code: /^source\./ })
  await t.rejects(bytesOf(dumpDatabase({ connection, tools, signal, snapshot: snapshot.id })), { code: 'dump.failed', hint: /snapshot/ })
  await sql.end()
})

t.test('a count that fails or is cancelled leaves the snapshot', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  await withTables(server)
  const admin = connectTo(server.url())
  await admin.unsafe(`CREATE ROLE weak LOGIN PASSWORD 'weak-password'; GRANT SELECT ON busy TO weak; ALTER TABLE parent ENABLE ROW LEVEL SECURITY; GRANT SELECT ON parent TO weak`).simple()
  const weak = parseConnection(server.url('postgres', 'weak', 'weak-password'))
  await t.rejects(holdSnapshot(weak, { signal }), { code: 'source.denied', message: /permission denied/ })
  const snapshot = await holdSnapshot(weak, { signal, lock: (all) => selectRelations(all, ['busy', 'public.parent'], ['child']).relations })
  const named = (...names: string[]) => snapshot.relations.filter(({ name }) => names.includes(name))
  await t.rejects(snapshot.countRows(named('unlogged'), signal), { code: 'source.denied' })
  await t.rejects(snapshot.countRows(named('parent'), signal), { message: /row-level security/ })
  await t.rejects(snapshot.countRows(named('busy'), AbortSignal.abort()), { code: 'cancelled' })
  t.same(await snapshot.countRows(named('busy'), signal), [{ schema: 'public', name: 'busy', rows: 1000 }])
  await t.rejects(bytesOf(dumpDatabase({ connection: weak, tools, signal, snapshot: snapshot.id })), { code: 'dump.failed', kind: 'configuration', hint: /Grant SELECT/ })
  await snapshot.release()
  await admin.end()

  const superuser = await holdSnapshot(parseConnection(server.url()), { signal })
  await server.kill9()
  await sleep(200)
  await t.rejects(superuser.countRows(superuser.relations, signal), { code: 'source.unreachable', retryable: true })
  await superuser.release()
})

t.test('a cancelled count ends its statement on the server', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const sql = connectTo(server.url())
  await sql`CREATE TABLE large AS SELECT i FROM generate_series(1, 3000000) i`
  const snapshot = await holdSnapshot(parseConnection(server.url()), { signal })
  const stop = new AbortController()
  const counting = snapshot.countRows(Array.from({ length: 200 }, () => snapshot.relations).flat(), stop.signal)
  setTimeout(() => stop.abort(), 300)
  await t.rejects(counting, { code: 'cancelled' })
  await sleep(200)
  t.same(await sql`SELECT state FROM pg_stat_activity WHERE application_name = 'backupd snapshot'`, [{ state: 'idle in transaction' }])
  t.same((await snapshot.countRows(snapshot.relations, signal))[0]?.rows, 3_000_000)
  await snapshot.release()
  await sql.end()
})

t.test('a standby shares its snapshot, without the tables it cannot read', async (t) => {
  const server = await startPostgres({ major: 12 })
  t.teardown(() => server.stop())
  await withTables(server)
  await server.kill9()
  await sleep(300)
  const marker = join(server.dataDir, 'standby.signal')
  writeFileSync(marker, '')
  const { uid, gid } = statSync(server.dataDir)
  chownSync(marker, uid, gid)
  await server.start()
  const connection = parseConnection(server.url())
  t.match(await withSql(connection, { signal }, describeDatabase), { inRecovery: true, superuser: true, serverMajor: 12 })
  const snapshot = await holdSnapshot(connection, { signal })
  t.type(snapshot.id, 'string')
  const [counts, dump] = await Promise.all([
    snapshot.countRows(snapshot.relations, signal),
    bytesOf(dumpDatabase({ connection, tools, signal, snapshot: snapshot.id })),
  ])
  t.same(counts.map(({ name, rows }) => [name, rows]), [['busy', 1000], ['child', 2], ['parent', 1], ['quo"te', 0], ['ranged_1', 1]])
  t.ok(dump.includes('1000\n'))
  await snapshot.release()
})

t.test('behind a balancer the snapshot is not shared, and counts still work', async (t) => {
  const hba = ['host all all 127.0.0.1/32 trust']
  const servers = await Promise.all([startPostgres({ hba }), startPostgres({ hba })])
  let next = 0
  const balancer = createServer((socket) => {
    const upstream = connect({ host: '127.0.0.1', port: servers[next++ % 2]?.port ?? 0 })
    for (const [from, to] of [[socket, upstream], [upstream, socket]] as const) {
      from.on('data', (chunk) => to.write(chunk)).on('end', () => to.end()).on('error', () => to.destroy()).on('close', () => to.destroy())
    }
  })
  await new Promise<void>((resolve) => void balancer.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    balancer.close()
    await Promise.all(servers.map((server) => server.stop()))
  })
  await withTables(servers[0])
  const { port } = balancer.address() as AddressInfo
  const snapshot = await holdSnapshot({ ...parseConnection(servers[0].url()), port }, { signal })
  t.equal(snapshot.id, undefined)
  t.match(snapshot.notShared, /proxy/)
  t.equal((await snapshot.countRows(snapshot.relations, signal)).length, 6)
  await snapshot.release()
})
