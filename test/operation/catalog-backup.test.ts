import { join } from 'node:path'
import t from 'tap'
import { openCatalog } from '../../src/catalog/connect.js'
import { listSchedules } from '../../src/catalog/schedules.js'
import { readConfig } from '../../src/config.js'
import { fireDue } from '../../src/daemon/schedule.js'
import { silentLog } from '../../src/log.js'
import { keepCatalogSchedules } from '../../src/operation/settings/catalog-schedules.js'
import { newWorkerId, type Environment } from '../../src/operation/environment.js'
import { eventually, startDaemon } from '../daemon/daemons.js'
import { tempDir } from '../support/temp.js'
import { createWorld, type ShownExecution, type World } from './world.js'

const daemonOf = async (t: Parameters<typeof createWorld>[0], world: World, more: Record<string, string> = {}): Promise<Environment> => {
  const config = readConfig({ BACKUPD_DATABASE_URL: world.server.url('catalog'), BACKUPD_STATE_DIR: world.stateDir, ...more })
  const signal = new AbortController().signal
  const catalog = await openCatalog({ databaseUrl: config.databaseUrl, stateDir: config.stateDir, log: silentLog(), signal })
  t.teardown(() => catalog.close())
  return { config, catalog, log: silentLog(), actor: { username: 'backupd', host: 'here' }, workerId: newWorkerId(), signal }
}

t.test('the catalog is backed up to each storage, by a schedule that is made once', async (t) => {
  const world = await createWorld(t)
  await world.ok(['schedule', 'add', 'nightly', '--cron', '@daily', '--storage', 'disk', '--exclude', 'nothing_of_it'])
  const [one, two, off] = [await daemonOf(t, world), await daemonOf(t, world), await daemonOf(t, world, { BACKUPD_CATALOG_BACKUP: 'off' })]
  const { sql } = one.catalog
  const managed = async () => (await listSchedules(one.catalog.db)).filter(({ managed_by }) => managed_by === 'backupd')

  await sql`UPDATE backup_keys SET retired_at = now()`
  await keepCatalogSchedules(one)
  t.strictSame(await managed(), [], 'none without a key')
  await sql`UPDATE backup_keys SET retired_at = NULL`
  await keepCatalogSchedules(off)
  t.strictSame(await managed(), [], 'none when that is switched off')
  await Promise.all([one, two, one, two].map(keepCatalogSchedules))
  await keepCatalogSchedules(one)
  const [schedule] = await managed()
  t.equal((await managed()).length, 1)
  t.match(schedule, { name: 'catalog-disk', backup_type: 'database_only', encrypt_backup: true, verify_integrity: true, retention_days: 30, source_id: null, cron_expression: /^[0-9]{1,2} 3 \* \* \*$/ })
  t.ok((schedule?.next_run_at?.getTime() ?? 0) > Date.now(), 'not at once')
  t.equal((await sql`SELECT FROM backup_audit_logs WHERE event_type = 'schedule.created' AND resource_name = 'catalog-disk'`).length, 1)

  await sql`CREATE TABLE of_another (id integer)`
  const run = (await world.ok(['run-now', 'catalog-disk', '--json'])).json<ShownExecution>()
  t.match(run, { status: 'completed', verification_status: 'verified', backup_config: { source: 'catalog', schedule: 'catalog-disk' }, warnings: [] })
  t.ok(run.encryption_key_hash)
  t.match((await world.ok(['schedule', 'list', '--json'])).json<{ name: string; source: string }[]>(), [{ name: 'catalog-disk', source: 'catalog' }, { name: 'nightly', source: 'default' }])

  await t.test('it can be restored, and is a catalog', async (t) => {
    const url = world.server.url('again')
    await world.ok(['restore', String(run.id), '--to', url])
    const env = { BACKUPD_DATABASE_URL: url }
    t.strictSame((await world.ok(['schedule', 'list', '--json'], { env })).json<{ name: string }[]>().map(({ name }) => name), ['catalog-disk', 'nightly'])
    await world.ok(['audit', 'verify'], { env })
    t.equal((await world.sql('again', `SELECT to_regclass('of_another') AS there`))[0]?.['there'], null, 'without what is of other programs')
    t.equal((await world.sql('again', `SELECT count(*)::int AS n FROM pg_constraint WHERE contype = 'f'`))[0]?.['n'], (await sql`SELECT count(*)::int AS n FROM pg_constraint WHERE contype = 'f'`)[0]?.['n'], 'with all foreign keys')
  })

  await t.test('it can be restored beside the catalog too', async (t) => {
    await world.ok(['restore', 'latest:catalog-disk', '--into', 'beside'])
    t.match(await world.sql('beside', 'SELECT name FROM backup_schedules ORDER BY name'), [{ name: 'catalog-disk' }, { name: 'nightly' }])
  })

  await t.test('it runs only where that is wanted', async (t) => {
    const due = () => sql`UPDATE backup_schedules SET next_run_at = now() - interval '1 second' WHERE name = 'catalog-disk'`
    await due()
    t.match(await fireDue(off), { fired: 0 })
    await world.ok(['storage', 'disable', 'disk'])
    await due()
    t.match(await fireDue(one), { fired: 0 })
    await world.ok(['storage', 'enable', 'disk'])
    await world.ok(['schedule', 'disable', 'catalog-disk'])
    await keepCatalogSchedules(one)
    t.match(await managed(), [{ is_active: false }], 'it stays switched off')
    t.equal((await managed()).length, 1)
    await world.ok(['schedule', 'enable', 'catalog-disk'])
    await due()
    t.match(await fireDue(one), { fired: 1 })
  })

  await t.test('what it is part of can go', async (t) => {
    t.match(await world.run(['schedule', 'remove', 'catalog-disk']), { code: 2, stderr: /disable catalog-disk/ })
    await world.ok(['storage', 'add', 'spare', '--type', 'local', '--set', `base_path=${join(tempDir(t, 'spare'), 'b')}`])
    await keepCatalogSchedules(two)
    t.strictSame((await managed()).map(({ name }) => name).sort(), ['catalog-disk', 'catalog-spare'])
    t.match(await world.run(['storage', 'remove', 'disk']), { code: 1, stderr: /in use|refer|uses/i })
    await world.ok(['storage', 'remove', 'spare'])
    t.strictSame((await managed()).map(({ name }) => name), ['catalog-disk'])
  })
})

t.test('a daemon makes the schedule by itself', async (t) => {
  const world = await createWorld(t)
  const daemon = startDaemon(t, { BACKUPD_DATABASE_URL: world.server.url('catalog'), BACKUPD_STATE_DIR: world.stateDir, BACKUPD_SOURCE_URL: world.server.url('shop'), BACKUPD_CATALOG_BACKUP: 'on', BACKUPD_LOG_LEVEL: 'info' })
  await daemon.said('the catalog is backed up to this storage daily')
  const rows = await eventually('the schedule', async () => {
    const found = await world.sql('catalog', `SELECT name, next_run_at > now() AS later FROM backup_schedules WHERE managed_by = 'backupd'`)
    return found.length > 0 && found
  })
  t.strictSame(rows, [{ name: 'catalog-disk', later: true }])
  t.equal(await daemon.end(), 0)
})
