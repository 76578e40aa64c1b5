import { writeFileSync } from 'node:fs'
import postgres from 'postgres'
import t from 'tap'
import { machineOn, newDatabase, serverFor, withStorageAndKey, type Failure } from './setup.js'

interface SourceRow { id: number | null; name: string; connection: { url: unknown; password?: unknown }; description: string | null }

const server = await serverFor(t)

t.test('wrong usage says where its help is', async (t) => {
  const { cli } = await machineOn(t, server)
  t.match(await cli(['source', 'add']), { code: 2, stderr: /--url[\s\S]*See backupd source add --help\./ })
  t.match(await cli(['source']), { code: 2, stderr: /what to do is missing[\s\S]*See backupd source --help\./ })
  t.match(await cli(['help', 'restore']), { code: 0, stdout: /--into <database>/ })
  t.match(await cli(['help', 'nonsense']), { code: 2, stderr: /unknown command 'nonsense'[\s\S]*See backupd --help\./ })
  t.match(await cli(['source', 'add', 'x', '--url', 'mysql://x']), { code: 2, stderr: /postgres:\/\/user@host:5432\/database/ })
})

t.test('a source is added with its password sealed, listed, tested and removed', async (t) => {
  const machine = await machineOn(t, server)
  const { cli } = machine
  const database = await newDatabase(server)
  const added = await cli(['source', 'add', 'shop', '--url', server.url(database), '--description', 'the shop', '--json'])
  t.equal(added.code, 0, added.stderr)
  const row = added.json<SourceRow>()
  t.match(row, { name: 'shop', description: 'the shop', connection: { url: `postgres://postgres@127.0.0.1:${server.port}/${database}`, password: '[secret]' } })

  const [stored] = await machine.query('SELECT connection::text AS connection FROM backup_sources')
  t.match(stored, { connection: /"password": ?\{"\$sealed": ?"v1:/ })
  t.notMatch(stored?.['connection'], server.password)

  t.strictSame((await cli(['source', 'list', '--json'])).json<SourceRow[]>(), [row])
  t.match((await cli(['source', 'list'])).stdout, /^NAME +URL +DESCRIPTION\nshop +postgres:\/\/postgres@/)

  const tested = await cli(['source', 'test', 'shop', '--json'])
  t.equal(tested.code, 0, tested.stderr)
  t.match(tested.json(), {
    name: 'shop', server_version: server.version, database, role: 'postgres', superuser: true, standby: false,
    extensions: [/^plpgsql /], unreadable_count: 0, problems: [], warnings: [], pg_dump: { version: /^\d+/, path: /pg_dump$/ },
  })
  t.ok(tested.json<{ size_bytes: number }>().size_bytes > 1_000_000)
  t.match((await cli(['source', 'test', 'shop'])).stdout, /pg dump +\d+.*\/pg_dump\)/)

  t.equal((await cli(['source', 'remove', 'shop'])).code, 0)
  t.match(await cli(['source', 'list']), { code: 0, stdout: /no sources: add one/ })
  t.strictSame((await cli(['source', 'list', '--json'])).json(), [])
  t.notMatch(machine.transcript(), server.password)
})

t.test('a role without all rights is told of, with exit code 4', async (t) => {
  const { cli } = await machineOn(t, server)
  const database = await newDatabase(server)
  const sql = postgres(server.url(database), { max: 1, onnotice: () => undefined })
  await sql.unsafe(`CREATE ROLE reader_${database} LOGIN PASSWORD 'rp'; CREATE TABLE seen (a int); CREATE TABLE hidden (a int);
    GRANT SELECT ON seen TO reader_${database}; SELECT lo_create(1); SELECT lo_create(2); GRANT SELECT ON LARGE OBJECT 2 TO reader_${database}; CREATE TABLE secured (a int); ALTER TABLE secured ENABLE ROW LEVEL SECURITY; GRANT SELECT ON secured TO reader_${database}`)
  await sql.end()
  await cli(['source', 'add', 'partly', '--url', server.url(database, `reader_${database}`, 'rp')])
  const result = await cli(['source', 'test', 'partly', '--json'])
  t.equal(result.code, 4)
  t.match(result.json(), { unreadable_count: 1, unreadable_tables: ['public.hidden'], unreadable_large_objects: 1, superuser: false, problems: [/may not read 1 of the tables/, /may not read 1 of the large objects/, /row security hides rows of 1 /], warnings: [/without their passwords/] })
})

t.test('what cannot be reached or is not there ends with its own exit code', async (t) => {
  const machine = await machineOn(t, server)
  const { cli } = machine
  t.match(await cli(['source', 'test', 'nowhere', '--json']), { code: 3 })
  t.match(await cli(['source', 'remove', 'nowhere']), { code: 3, stderr: /there is no source "nowhere"/ })
  await cli(['source', 'add', 'wrong', '--url', server.url('postgres', 'postgres', 'not-the-password')])
  t.match((await cli(['source', 'test', 'wrong', '--json'])).json<Failure>(), { error: { code: 'source.auth' } })
  t.equal((await cli(['source', 'test', 'wrong'])).code, 4)
  t.match(await cli(['source', 'add', 'wrong', '--url', 'postgres://elsewhere/db']), { code: 2, stderr: /there is a source named wrong already/ })
  t.match(await cli(['source', 'add', 'x', '--url', 'mysql://elsewhere/db']), { code: 2, stderr: /does not start with postgres:\/\// })
  t.match(await cli(['source', 'add', ' x', '--url', 'postgres://elsewhere/db']), { code: 2, stderr: /begins or ends with a blank/ })
  t.match(await cli(['source', 'add', 'x']), { code: 2, stderr: /--url/ })
  t.match(await cli(['source']), { code: 2, stderr: /what to do is missing/ })
  t.notMatch(machine.transcript(), 'not-the-password')
})

t.test('a URL may stand in a variable, a file or on standard input', async (t) => {
  const machine = await machineOn(t, server)
  const { cli } = machine
  const url = server.url(await newDatabase(server))
  writeFileSync(machine.path('url'), `${url}\n`, { mode: 0o600 })

  const byVariable = await cli(['source', 'add', 'variable', '--url', '{"$env": "SHOP_URL"}', '--json'], { env: { SHOP_URL: url } })
  t.match(byVariable.json<SourceRow>().connection, { url: { $env: 'SHOP_URL' } })
  t.equal((await cli(['source', 'test', 'variable'], { env: { SHOP_URL: url } })).code, 0)
  t.match(await cli(['source', 'test', 'variable']), { code: 4, stderr: /SHOP_URL, which is not set/ })
  const unset = await cli(['source', 'add', 'later', '--url', '{"$env": "NOT_YET"}'])
  t.match(unset, { code: 0, stdout: /warning: .*NOT_YET.*where the daemon runs/ })

  t.equal((await cli(['source', 'add', 'file', '--url', `{"$file": "${machine.path('url')}"}`])).code, 0)
  t.equal((await cli(['source', 'test', 'file'])).code, 0)
  t.match(await cli(['source', 'add', 'x', '--url', '{"$file": "relative"}']), { code: 2, stderr: /not absolute/ })
  t.match(await cli(['source', 'add', 'x', '--url', '{"$other": "X"}']), { code: 2, stderr: /looks like a reference/ })

  t.equal((await cli(['source', 'add', 'stdin', '--url', '-'], { stdin: `${url}\n` })).code, 0)
  t.equal((await cli(['source', 'test', 'stdin'])).code, 0)
  t.notMatch(machine.transcript(), server.password)
})

t.test('BACKUPD_SOURCE_URL is the source named default, whatever the catalog says', async (t) => {
  const machine = await machineOn(t, server)
  const { cli } = machine
  const env = { BACKUPD_SOURCE_URL: server.url() }
  t.match((await cli(['source', 'list', '--json'], { env })).json(), [{ id: null, name: 'default', connection: { url: { $env: 'BACKUPD_SOURCE_URL' } } }])
  t.equal((await cli(['source', 'test', 'default'], { env })).code, 0)
  t.match(await cli(['source', 'add', 'default', '--url', 'postgres://elsewhere/db'], { env }), { code: 0, stdout: /warning: BACKUPD_SOURCE_URL is set/ })
  t.match((await cli(['source', 'list', '--json'], { env })).json(), [{ id: 1, name: 'default', connection: { url: { $env: 'BACKUPD_SOURCE_URL' } } }])
  t.equal((await cli(['source', 'test', 'default'], { env })).code, 0)
  t.notMatch(machine.transcript(), server.password)
})

t.test('a source that schedules use is not removed, and the attempt is on record', async (t) => {
  const machine = await machineOn(t, server)
  const { cli } = machine
  await withStorageAndKey(machine)
  await cli(['source', 'add', 'shop', '--url', 'postgres://elsewhere/shop'])
  await cli(['source', 'add', 'default', '--url', 'postgres://elsewhere/db'])
  for (const args of [['nightly', '--source', 'shop'], ['weekly']]) {
    t.equal((await cli(['schedule', 'add', ...args, '--cron', '@daily', '--storage', 'disk'])).code, 0)
  }
  const refused = await cli(['source', 'remove', 'shop', '--json'])
  t.equal(refused.code, 1)
  t.match(refused.json<Failure>().error, { code: 'source.in_use', message: /schedule nightly/ })
  t.match(await cli(['source', 'remove', 'default']), { code: 1, stderr: /in use: schedule weekly/ })
  const trail = (await cli(['audit', 'list', '--json'])).json<Record<string, unknown>[]>()
  t.match(trail[1], { event_type: 'source.removed', status: 'failure', action: 'delete', resource_name: 'shop', event_data: { code: 'source.in_use' } })

  await cli(['schedule', 'remove', 'nightly'])
  t.equal((await cli(['source', 'remove', 'shop'])).code, 0)
  const [removed] = (await cli(['audit', 'list', '--json', '--limit', '1'])).json<Record<string, unknown>[]>()
  t.match(removed, { event_type: 'source.removed', status: 'success', before_state: { name: 'shop', connection: { url: /^postgres:/ } } })
})
