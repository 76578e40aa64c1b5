import { chmodSync, existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { startPostgres } from '../support/postgres-server.js'
import { machineOn, newDatabase, serverFor, withStorageAndKey, type Machine } from './setup.js'

interface Finding { check: string; subject: string; level: string; message: string; advice?: string }
interface Report { ok: boolean; findings: Finding[] }

const server = await serverFor(t)

const examine = async ({ cli }: Machine, env: Record<string, string> = {}) => {
  const result = await cli(['doctor', '--json'], { env })
  const report = result.json<Report>()
  return { ...report, code: result.code, of: (subject: string) => report.findings.filter((finding) => finding.subject === subject) }
}

t.test('a machine on which all is well', async (t) => {
  const machine = await machineOn(t, server, { BACKUPD_SOURCE_URL: server.url() })
  const { cli } = machine
  await withStorageAndKey(machine)
  await cli(['source', 'add', 'shop', '--url', server.url(await newDatabase(server))])
  await cli(['schedule', 'add', 'nightly', '--cron', '@daily', '--storage', 'disk'])
  const { ok, code, of, findings } = await examine(machine)
  t.ok(ok, JSON.stringify(findings, null, 2))
  t.equal(code, 0)
  for (const subject of ['node', 'tools', 'state directory', 'catalog', 'secret key', 'keys', 'private keys', 'source default', 'source shop', 'storage disk', 'disk of the state directory', 'disk of storage disk', 'schedule nightly']) {
    t.match(of(subject), [{ level: 'healthy' }], subject)
  }
  t.match(of('catalog'), [{ message: new RegExp(`PostgreSQL ${server.version}, schema \\d{4}_`) }])
  t.match(of('source shop'), [{ message: /backed up with pg_dump \d+/ }])
  t.match(of('private keys'), [{ message: 'at hand: default' }])
  t.match(of('daemon'), [{ level: 'warning', advice: /backupd daemon/ }])
  t.equal(of('compression')[0]?.level, 'healthy')
  const shown = await cli(['doctor'])
  t.equal(shown.stdout.trim().split('\n').length, findings.length, 'one line each')
  t.match(shown.stdout, /^ok {7}node: Node\.js/)
  t.notMatch(machine.transcript(), server.password)
})

t.test('each thing that is wrong is a problem of its own, with what to do', async (t) => {
  const machine = await machineOn(t, server)
  const { cli } = machine
  await cli(['source', 'add', 'default', '--url', server.url()])
  await cli(['source', 'add', 'wrong', '--url', server.url('postgres', 'postgres', 'bad-password')])
  await cli(['source', 'add', 'missing', '--url', '{"$env": "NOT_SET"}'])
  await cli(['storage', 'add', 'broken', '--type', 'local', '--set', 'base_path=/proc/version'])
  await cli(['storage', 'add', 'off', '--type', 'local', '--set', 'base_path=/proc/version'])
  await cli(['storage', 'disable', 'off'])
  await machine.query(`INSERT INTO backup_schedules (name, cron_expression, backup_type, storage_backend_id, compression_type, created_at) VALUES
    ('odd', '@daily', 'full', 1, 'bzip2', now()), ('nonsense', 'whenever', 'full', 1, 'gzip', now()), ('late', '@daily', 'full', 1, 'gzip', now() - interval '4 days')`)
  const { ok, code, of } = await examine(machine)
  t.notOk(ok)
  t.equal(code, 1)
  t.match(of('keys'), [{ level: 'critical', message: /these schedules encrypt: late, nonsense, odd/, advice: /backupd key generate/ }])
  t.match(of('source default'), [{ level: 'healthy' }])
  t.match(of('source wrong'), [{ level: 'critical', message: /refuses the login/, advice: /password/ }])
  t.match(of('source missing'), [{ level: 'critical', message: /NOT_SET/ }])
  t.match(of('storage broken'), [{ level: 'critical' }])
  t.strictSame(of('storage off'), [], 'what is switched off is left alone')
  t.match(of('schedule odd'), [{ level: 'critical', message: /"bzip2" is not known/ }])
  t.match(of('schedule nonsense'), [{ level: 'critical', message: /not a cron expression/ }])
  t.match(of('schedule late'), [{ level: 'critical', message: /no good backup yet, though it was due at/ }])
  t.notMatch(machine.transcript(), 'bad-password')
})

t.test('it goes on without a catalog', async (t) => {
  const machine = await machineOn(t, server)
  const env = { BACKUPD_DATABASE_URL: 'postgres://u:hidden-word@127.0.0.1:1/d', BACKUPD_SOURCE_URL: server.url() }
  const { code, of } = await examine(machine, env)
  t.equal(code, 1)
  t.match(of('catalog'), [{ level: 'critical', message: /cannot be reached/, advice: /BACKUPD_DATABASE_URL/ }])
  t.match(of('source default'), [{ level: 'healthy' }])
  t.match(of('storages'), [{ level: 'warning', message: /not checked/ }])
  t.match(of('node'), [{ level: 'healthy' }])
  t.notMatch(machine.transcript(), 'hidden-word')
})

t.test('it only looks: a catalog that has to be made or migrated first is told of, and left as it is', async (t) => {
  const machine = await machineOn(t, server)
  const empty = await examine(machine)
  t.equal(empty.code, 1)
  t.match(empty.of('catalog'), [{ level: 'critical', message: /0000_shared_tables.* not applied/, advice: 'Run "backupd migrate".' }])
  t.match(empty.of('storages'), [{ level: 'warning', message: /not checked/ }])
  t.match(await machine.query("SELECT count(*)::int AS n FROM pg_tables WHERE schemaname = 'public'"), [{ n: 0 }])
  const embedded = await examine(machine, { BACKUPD_DATABASE_URL: '' })
  t.match(embedded.of('catalog'), [{ level: 'critical', message: /embedded in .* is not there yet/, advice: 'Run "backupd migrate".' }])
  t.notOk(existsSync(machine.stateDir), 'nothing is made')
  await machine.cli(['migrate'])
  await machine.query("INSERT INTO backupd_migrations (hash, created_at) VALUES ('9999_future', 9999999999999)")
  t.match((await examine(machine)).of('catalog'), [{ level: 'critical', message: /newer backupd \(9999_future\)/, advice: /Install that version/ }])
})

t.test('no key is nothing to warn of where no schedule encrypts', async (t) => {
  const machine = await machineOn(t, server, { BACKUPD_SOURCE_URL: server.url() })
  await machine.cli(['storage', 'add', 'disk', '--type', 'local', '--set', `base_path=${machine.path('repository')}`])
  t.match((await examine(machine)).of('keys'), [{ level: 'warning', advice: /backupd key generate/ }])
  await machine.cli(['schedule', 'add', 'plain', '--cron', '@daily', '--storage', 'disk', '--no-encrypt'])
  t.match((await examine(machine)).of('keys'), [{ level: 'healthy', message: /no schedule encrypts/ }])
})

t.test('rights that are too wide and tools that are missing are told of', async (t) => {
  const machine = await machineOn(t, server)
  await machine.cli(['source', 'add', 'shop', '--url', server.url()])
  mkdirSync(machine.stateDir, { recursive: true })
  chmodSync(machine.stateDir, 0o777)
  chmodSync(join(machine.stateDir, 'secret.key'), 0o644)
  const { of } = await examine(machine)
  t.match(of('state directory'), [{ level: 'critical', advice: /chmod go-w/ }])
  t.match(of('secret key'), [{ level: 'critical', advice: /chmod 600/ }])
})

t.test('a source newer than every pg_dump here is a problem', async (t) => {
  const newer = await startPostgres({ major: 18 })
  t.teardown(() => newer.stop())
  const machine = await machineOn(t, server, { BACKUPD_SOURCE_URL: newer.url() })
  const { of } = await examine(machine)
  t.match(of('tools'), [{ level: 'healthy' }])
  const tested = await machine.cli(['source', 'test', 'default', '--json'])
  if (tested.code === 0) t.match(tested.json(), { pg_dump: { version: /^18/ } }, 'this machine has a client of version 18')
  else t.match(of('source default'), [{ level: 'critical', message: /server is PostgreSQL 18.*Install postgresql-client-18/s }])
})
