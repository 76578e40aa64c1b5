import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openCatalog } from '../../src/catalog/connect.js'
import { readConfig } from '../../src/config.js'
import { silentLog } from '../../src/log.js'
import { keepCatalogSchedules } from '../../src/operation/settings/catalog-schedules.js'
import { newWorkerId, type Environment } from '../../src/operation/environment.js'
import { machineOn, newDatabase, serverFor, withStorageAndKey, type Failure, type Machine } from '../cli/setup.js'
import { never } from '../catalog/server.js'
import { startDaemon } from '../daemon/daemons.js'
import postgres from 'postgres'

const server = await serverFor(t)

const environmentOn = async (test: Pick<typeof t, 'teardown'>, machine: Machine, more: Record<string, string> = {}): Promise<Environment> => {
  const config = readConfig({ BACKUPD_STATE_DIR: machine.stateDir, BACKUPD_DATABASE_URL: machine.catalogUrl, ...more })
  const catalog = await openCatalog({ databaseUrl: config.databaseUrl, stateDir: config.stateDir, log: silentLog(), signal: never })
  test.teardown(() => catalog.close())
  return { config, catalog, log: silentLog(), actor: { username: 'backupd', host: 'here' }, workerId: newWorkerId(), signal: never }
}

const ok = async (machine: Machine, args: string[], env: Record<string, string> = {}): Promise<string> => {
  const { code, stdout, stderr } = await machine.cli(args, { env })
  if (code !== 0) throw new Error(`${args.join(' ')}: ${stderr}`)
  return stdout
}

t.test('a catalog that was lost comes back', async (t) => {
  const machine = await machineOn(t, server)
  await withStorageAndKey(machine)
  const shop = await newDatabase(server)
  const sql = postgres(server.url(shop), { max: 1 })
  t.teardown(() => sql.end())
  await sql`CREATE TABLE goods AS SELECT n AS id FROM generate_series(1, 500) n`
  await ok(machine, ['source', 'add', 'shop', '--url', server.url(shop)])
  await ok(machine, ['schedule', 'add', 'nightly', '--cron', '0 2 * * *', '--storage', 'disk', '--source', 'shop'])
  await ok(machine, ['run-now', 'nightly'])
  await keepCatalogSchedules(await environmentOn(t, machine))
  // Under way while the catalog is dumped, and finished afterwards: its objects must not be taken for what a lost daemon left.
  await machine.query(`INSERT INTO backup_executions (backup_id, schedule_id, storage_backend_id, backup_type, triggered_by, status, started_at, included_components, attempt, worker_id, lease_expires_at)
    SELECT '20260101T000000Z-nightly-aaaaaa', id, storage_backend_id, 'full', 'schedule', 'running', now(), '[]', 1, 'gone:1:x', now() + interval '1 hour' FROM backup_schedules WHERE name = 'nightly'`)
  const backedUp = JSON.parse(await ok(machine, ['run-now', 'catalog-disk', '--json'])) as { backup_id: string; status: string; verification_status: string }
  t.match(backedUp, { status: 'completed', verification_status: 'verified' })
  await machine.query(`DELETE FROM backup_executions WHERE status = 'running'`)
  await ok(machine, ['run-now', 'nightly'])
  const folders = readdirSync(machine.path('repository')).filter((name) => name.startsWith('2'))
  t.equal(folders.length, 3)

  const identity = join(machine.stateDir, 'identities', readdirSync(join(machine.stateDir, 'identities'))[0] ?? '')
  const other = await machineOn(t, server, { BACKUPD_IDENTITY_FILE: identity })
  await ok(other, ['storage', 'add', 'disk', '--type', 'local', '--set', `base_path=${machine.path('repository')}`])
  await ok(other, ['source', 'add', 'mine', '--url', server.url(shop)])
  t.match((await other.cli(['catalog', 'restore', '--storage', 'disk', '--json'])).json<Failure>(), { error: { code: 'catalog.not_empty', message: /1 sources/ } })
  await ok(other, ['source', 'remove', 'mine'])
  t.match(await other.cli(['catalog', 'restore', '--storage', 'disk', '--backup', folders.find((name) => name.includes('nightly')) ?? '']), { code: 3 })
  const said = await ok(other, ['catalog', 'restore', '--storage', 'disk'])
  t.match(said, new RegExp(`the catalog is back, as it was at .*${backedUp.backup_id}`))
  t.match(said, /runs that were under way then, left out: 20260101T000000Z-nightly-aaaaaa/)
  t.match(said, /warning: source shop: .*secret key/i, 'what is sealed with the key of the lost machine is named')
  const names = async (kind: string): Promise<string[]> => (JSON.parse(await ok(other, [kind, 'list', '--json'])) as { name: string }[]).map(({ name }) => name)
  t.strictSame([await names('source'), await names('storage'), await names('schedule')], [['shop'], ['disk'], ['catalog-disk', 'nightly']])
  const executions = JSON.parse(await ok(other, ['list', '--json'])) as { backup_id: string; status: string }[]
  t.strictSame(executions.map(({ backup_id }) => backup_id).sort(), folders.sort(), 'what came after the backup of the catalog was found too')
  const target = await newDatabase(server)
  await ok(other, ['restore', 'latest:nightly', '--to', server.url(`${target}_restored`)])
  const restored = postgres(server.url(`${target}_restored`), { max: 1 })
  t.teardown(() => restored.end())
  t.equal((await restored`SELECT count(*)::int AS n FROM goods`)[0]?.['n'], 500)

  const secretKey = join(machine.stateDir, 'secret.key')
  const again = await ok(other, ['catalog', 'restore', '--storage', 'disk', '--replace'], { BACKUPD_SECRET_KEY_FILE: secretKey })
  t.notMatch(again, /warning: source shop/, 'with that key the secrets are open')
  const daemon = startDaemon(t, { BACKUPD_STATE_DIR: other.stateDir, BACKUPD_DATABASE_URL: other.catalogUrl, BACKUPD_SECRET_KEY_FILE: secretKey })
  await daemon.said('ready')
  await daemon.end()
  t.strictSame(readdirSync(machine.path('repository')).filter((name) => name.startsWith('2')).sort(), folders.sort(), 'a daemon removes none of the backups')
  await ok(other, ['run-now', 'nightly'], { BACKUPD_SECRET_KEY_FILE: secretKey })
})
