import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openCatalog } from '../../src/catalog/connect.js'
import { readConfig } from '../../src/config.js'
import { checks, runChecks } from '../../src/health/registry.js'
import { silentLog } from '../../src/log.js'
import type { Environment } from '../../src/operation/environment.js'
import { healthContext } from '../../src/operation/health.js'
import { scrubOne } from '../../src/operation/scrub.js'
import { createWorld, type ShownExecution } from './world.js'

const world = await createWorld(t, { encrypt: false })
const config = readConfig({ BACKUPD_STATE_DIR: world.stateDir, BACKUPD_DATABASE_URL: world.server.url('catalog'), BACKUPD_SOURCE_URL: world.server.url('shop') })
const signal = new AbortController().signal
const catalog = await openCatalog({ databaseUrl: config.databaseUrl, stateDir: world.stateDir, log: silentLog(), signal })
t.teardown(() => catalog.close())

const worker = (name: string, more: Partial<typeof config> = {}): Environment =>
  ({ config: { ...config, ...more }, catalog, log: silentLog(), actor: { username: 'backupd', host: 'here' }, workerId: `here:1:${name}`, signal })
const rows = (text: string): Promise<Record<string, unknown>[]> => world.sql('catalog', text)
const check = async (name: string) => {
  const context = healthContext({ config, log: silentLog(), signal, catalog: () => Promise.resolve(catalog), thorough: false })
  return (await runChecks(context, checks.filter((one) => one.name === name)))[0]?.findings ?? []
}
const backUp = async (): Promise<ShownExecution> => (await world.ok(['run-now', 'nightly', '--json'])).json<ShownExecution>()
const age = (id: number, days: number): Promise<unknown> =>
  rows(`UPDATE backup_executions SET started_at = started_at - interval '${days} days', completed_at = completed_at - interval '${days} days', verified_at = verified_at - interval '${days} days' WHERE id = ${id}`)

await world.ok(['schedule', 'add', 'nightly', '--cron', '@yearly', '--storage', 'disk', '--no-encrypt'])
const rotten = await backUp()
const whole = await backUp()

t.test('what was read back lately is left alone, and 0 days switches it off', async (t) => {
  t.equal(await scrubOne(worker('a')), undefined)
  await age(rotten.id, 40)
  t.equal(await scrubOne(worker('a', { scrubDays: 0 })), undefined)
  t.match(await check('integrity'), [{ level: 'warning', message: /^1 of 2 backups not read back for more than 30 days/, metrics: { not_read_back: 1, oldest_days: 40 } }])
})

t.test('a storage that is empty is no proof of damage', async (t) => {
  renameSync(world.storageDir, `${world.storageDir}-away`)
  t.match(await scrubOne(worker('a')), { outcome: 'unreadable' })
  renameSync(`${world.storageDir}-away`, world.storageDir)
  t.equal(await scrubOne(worker('b')), undefined, 'it is not tried again at once')
  t.match(await rows(`SELECT status FROM backup_executions WHERE id = ${rotten.id}`), [{ status: 'completed' }])
  await rows(`UPDATE backup_executions SET execution_metadata = execution_metadata - 'scrub'`)
})

t.test('a byte that has changed in an old backup is found, once, whatever the number of daemons', async (t) => {
  const folder = join(world.storageDir, rotten.backup_id)
  const part = join(folder, readdirSync(folder).find((name) => name.startsWith('database') || name.startsWith('data')) ?? '')
  const bytes = readFileSync(part)
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1
  writeFileSync(part, bytes)
  await age(whole.id, 35)
  const found = await Promise.all(['a', 'b', 'c'].map((name) => scrubOne(worker(name))))
  t.strictSame(found.flatMap((one) => (one === undefined ? [] : [[one.execution.id, one.outcome]])).sort(), [[rotten.id, 'damaged'], [whole.id, 'whole']])
  t.match(await rows('SELECT id, status, verification_status, error_message, verified_at > now() - interval \'1 minute\' AS fresh, execution_metadata ? \'scrub\' AS claimed FROM backup_executions ORDER BY id'), [
    { id: rotten.id, status: 'corrupted', verification_status: 'corrupted', error_message: /is damaged/, fresh: true, claimed: false },
    { id: whole.id, status: 'completed', verification_status: 'verified', fresh: true, claimed: false },
  ])
  t.match(await rows(`SELECT resource_id, status, risk_level FROM backup_audit_logs WHERE event_type = 'backup.verified' ORDER BY resource_id::integer`), [
    { resource_id: String(rotten.id), status: 'failure', risk_level: 'critical' }, { resource_id: String(whole.id), status: 'success' },
  ])
  t.match(await check('integrity'), [{ level: 'critical', message: '1 backup found damaged within 7 days', advice: /verify/ }])
  t.equal(await scrubOne(worker('d')), undefined)
})

t.test('one whose deletion has begun while it was read is not called damaged', async (t) => {
  await age(whole.id, 40)
  await rows(`CREATE FUNCTION expire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.expiring_at := now(); RETURN NEW; END $$;
    CREATE TRIGGER expire BEFORE UPDATE ON backup_executions FOR EACH ROW EXECUTE FUNCTION expire()`)
  t.match(await scrubOne(worker('e')), { outcome: 'gone' })
  await rows('DROP TRIGGER expire ON backup_executions; UPDATE backup_executions SET expiring_at = NULL')
  t.match(await rows(`SELECT status FROM backup_executions WHERE id = ${whole.id}`), [{ status: 'completed' }])
})

t.test('an empty dump is found', async (t) => {
  t.match(await check('sizes'), [{ level: 'healthy' }])
  await world.sql('shop', 'DROP TABLE customers, orders, empty_one CASCADE; SELECT lo_unlink(4711)')
  t.match((await world.run(['run-now', 'nightly', '--json'])).json(), { error: { code: 'integrity.corrupted', message: /pg_restore lists nothing in it/ } }, 'by the verification, where there is one')
  await rows('UPDATE backup_schedules SET verify_integrity = false')
  const empty = await backUp()
  t.equal(empty.status, 'completed', 'it is a good backup, of nothing')
  t.match(await check('sizes'), [{ level: 'critical', subject: 'size of the newest backup of nightly', message: new RegExp(`execution ${empty.id} holds nothing: the dump is \\d+ bytes`), advice: /right database/ }])
  // Large ones in a row, and then one of half the usual size: by the numbers alone.
  await rows(`UPDATE backup_executions SET size_bytes = 10000000 WHERE id <> ${empty.id};
    INSERT INTO backup_executions (backup_id, schedule_id, storage_backend_id, backup_type, triggered_by, status, started_at, size_bytes, included_components)
    SELECT 'made-' || n, schedule_id, storage_backend_id, backup_type, 'manual', 'completed', now() + n * interval '1 second', CASE n WHEN 3 THEN 4000000 ELSE 10000000 END, '[]'
    FROM backup_executions, generate_series(1, 3) n WHERE id = ${whole.id}`)
  t.match(await check('sizes'), [{ level: 'warning', message: /read 3 MiB, where 9 MiB is usual/ }])
})
