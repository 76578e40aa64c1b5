import { existsSync, mkdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { executionById, latestExecution, newestGoodBackups, type Execution } from '../../src/catalog/executions.js'
import { exclusively } from '../../src/catalog/exclusive.js'
import { holdExecution, markExpiring } from '../../src/catalog/expiry.js'
import { insertRecovery } from '../../src/catalog/recoveries.js'
import { dropStorage, needStorage } from '../../src/operation/settings/storages.js'
import { createUpkeep } from '../../src/daemon/upkeep.js'
import { requestCopy } from '../../src/operation/copy-queue.js'
import { applyRetention, type CleanupReport } from '../../src/operation/expire.js'
import { addPolicy } from '../../src/operation/settings/policies.js'
import { pinExecution } from '../../src/operation/pin.js'
import { createTracker } from '../../src/operation/progress.js'
import { needBackup } from '../../src/operation/request.js'
import { verifyExecution } from '../../src/operation/reverify.js'
import { planRestore } from '../../src/operation/restore-plan.js'
import { openStorageRow } from '../../src/operation/sources.js'
import { startPostgres } from '../support/postgres-server.js'
import { addDisk, lockFolder, shelf, type Shelf } from './retained.js'

const server = await startPostgres()
t.teardown(() => server.stop())

const apply = ({ env }: Shelf): Promise<CleanupReport[]> => applyRetention(env, {}, 'manual')
const execution = async ({ catalog }: Shelf, id: number): Promise<Execution> => {
  const row = await executionById(catalog.db, id)
  if (row === undefined) throw new Error(`there is no execution ${id}`)
  return row
}
const strict = { name: 'strict', storage: 'disk', days: 1, daily: 'none', weekly: 'none', monthly: 'none', yearly: 'none', min: 1 } as const
/** Executions 1 (of today) to `count`, each ten days older than the one before, under a policy that keeps the newest. */
const filled = async (t: Parameters<typeof shelf>[0], count: number): Promise<Shelf & { folders: string[] }> => {
  const made = await shelf(t, server)
  await addPolicy(made.env, strict)
  const folders: string[] = []
  for (let id = 1; id <= count; id += 1) folders.push(await made.put(id, (id - 1) * 10))
  return { ...made, folders }
}
const history = ({ sql }: Shelf) => sql('SELECT status, backups_evaluated AS evaluated, backups_deleted AS deleted, backups_kept AS kept, error_message, warnings FROM backup_cleanup_history ORDER BY storage_backend_id, id')

t.test('what the storage refuses is reported, stays a backup, and is tried again', async (t) => {
  const world = await filled(t, 4)
  const [, second = ''] = world.folders
  const unlock = lockFolder(t, join(world.dir, second))
  t.match(await apply(world), [{ status: 'partial', evaluated: 4, deleted: [world.folders[3], world.folders[2]], remaining: [{ id: 2, reason: /manifest\.json: .*(EPERM|EACCES|not permitted|denied)/i }] }])
  t.same(await world.ids(), [1, 2])
  t.match(await execution(world, 2), { expiring_at: null, status: 'completed' }, 'nothing of it was removed, so it is what it was')
  t.match(await history(world), [{ status: 'partial', evaluated: 4, deleted: 2, kept: 2, error_message: '1 of 3 could not be deleted', warnings: [new RegExp(second)] }])
  t.match(await world.sql("SELECT status, event_data ->> 'remaining' AS remaining FROM backup_audit_logs WHERE event_type = 'retention.applied'"), [{ status: 'warning', remaining: '1' }])
  unlock()
  t.match(await apply(world), [{ status: 'completed', evaluated: 2, deleted: [second] }])
  t.same(world.objects().filter((key) => !key.startsWith(world.folders[0] ?? '?')), [])
  t.match(await world.sql('SELECT total_cleanups, total_backups_deleted AS deleted FROM backup_retention_policies'), [{ total_cleanups: 2, deleted: 3 }])
})

t.test('a deletion that stops half-way leaves nothing that counts, and is ended later', async (t) => {
  const world = await filled(t, 2)
  const folder = world.folders[1] ?? ''
  const { db } = world.catalog
  const unlock = lockFolder(t, join(world.dir, folder, 'deep'))
  t.match(await apply(world), [{ status: 'partial', deleted: [], remaining: [{ id: 2, reason: /deep\/index\.json/ }] }])
  t.notOk(existsSync(join(world.dir, folder, 'manifest.json')), 'the manifest went first')
  t.ok(existsSync(join(world.dir, folder, 'deep/index.json')))

  await world.sql("UPDATE backup_executions SET status = 'failed' WHERE id = 1")
  t.equal(await latestExecution(db, 'shop'), undefined)
  t.equal((await newestGoodBackups(db)).size, 0)
  const row = await execution(world, 2)
  const expiring = { code: 'backup.expiring', kind: 'notFound' }
  t.throws(() => needBackup(row), expiring)
  await t.rejects(pinExecution(world.env, row, true), expiring)
  await addDisk(world, t, 'vault')
  const vault = await needStorage(db, 'vault')
  await t.rejects(requestCopy(world.env, row, vault, { verify: true, trigger: 'manual' }), expiring)
  const storage = await openStorageRow(world.env, await needStorage(db, 'disk'))
  const options = { target: { into: 'x' }, overwrite: false, tables: [], schemaOnly: false, jobs: 1, noOwner: false, globals: false }
  await t.rejects(planRestore(world.env, row, storage, options), expiring)
  await t.rejects(verifyExecution(world.env, row, createTracker(), 'checksum'), expiring, 'what is missing of it is no damage')
  t.equal((await execution(world, 2)).status, 'completed')

  unlock()
  t.match(await apply(world), [{ status: 'completed', deleted: [folder] }])
  t.same(await world.ids(), [1])
  t.same(world.objects().filter((key) => key.startsWith(folder)), [])

  // Killed after the last object and before the record.
  await world.put(3, 1, { expiring_at: 'now()' })
  rmSync(join(world.dir, '20260101T000003Z-shop-aaaaaa'), { recursive: true })
  t.match(await apply(world), [{ status: 'completed', deleted: ['20260101T000003Z-shop-aaaaaa'], freed: 0 }])
})

t.test('interlock: nothing good is deleted while the newest is not good, through to the objects', async (t) => {
  const world = await filled(t, 3)
  const before = world.objects()
  for (const change of [`status = 'failed'`, `status = 'corrupted'`, `verification_status = 'pending'`, `verification_status = 'failed'`, `status = 'verifying', verification_status = 'pending'`]) {
    await world.sql(`UPDATE backup_executions SET status = 'completed', verification_status = 'verified' WHERE id = 1; UPDATE backup_executions SET ${change} WHERE id = 1`)
    t.match(await apply(world), [{ status: 'completed', deleted: [] }], change)
  }
  await world.sql(`UPDATE backup_schedules SET timezone = 'Europe/Atlantis'; UPDATE backup_executions SET status = 'completed', verification_status = 'verified'`)
  t.match(await apply(world), [{ deleted: [] }], 'nor by a clock that does not exist')
  t.same(world.objects(), before)
  await world.sql(`UPDATE backup_schedules SET timezone = 'UTC'; UPDATE backup_executions SET started_at = now() + interval '1 day' WHERE id = 1`)
  t.match(await apply(world), [{ deleted: [world.folders[2]] }], 'of the others the newest stays')
})

t.test('what cannot be what it should be is left alone', async (t) => {
  const world = await filled(t, 1)
  await world.put(2, 20, { attempt: 'NULL', execution_metadata: 'NULL' })
  await world.put(3, 30, { storage_location: `'file:///somewhere/else'` })
  const gone = await world.put(4, 40)
  rmSync(join(world.dir, gone), { recursive: true })
  await world.put(5, 50, { status: `'failed'`, execution_metadata: `'{"leftovers": true}'` })
  const shared = await world.put(6, 60)
  await world.put(7, 0, { backup_id: `'other'`, schedule_id: 'NULL', execution_metadata: `'{"manifest": "{}", "stored_as": "${shared}"}'` })
  const moved = await world.put(8, 80, { storage_location: `'file:///before/the/move'` })
  rmSync(join(world.dir, '20260101T000003Z-shop-aaaaaa'), { recursive: true })
  const [, kept] = [await apply(world), await world.ids()]
  t.same(kept, [1, 2, 3, 4, 5, 7], 'one whose folder another one has goes without it, one that was moved goes')
  const [{ remaining } = { remaining: [] }] = await apply(world)
  t.match(remaining, [{ id: 5, reason: /yet to be cleared away/ }, { id: 4, reason: /is everything mounted\? "backupd verify 4"/ }, { id: 3, reason: /stored at file:\/\/\/somewhere\/else/ }])
  t.ok(existsSync(join(world.dir, shared, 'manifest.json')))
  t.notOk(existsSync(join(world.dir, moved)))
  t.same(await world.sql('SELECT id FROM backup_executions WHERE expiring_at IS NOT NULL'), [])
})

t.test('without a policy the history says so, and a storage that is away does not keep others from being cleaned', async (t) => {
  const world = await shelf(t, server)
  const other = await addDisk(world, t, 'other')
  for (const id of [1, 2, 3, 4, 5]) await world.put(id, id * 10)
  for (const id of [11, 12, 13, 14]) await world.put(id, id * 10, { storage_backend_id: '2', storage_location: 'NULL', copy_of: '1' })
  await world.sql(`UPDATE storage_backend_configs SET config_data = '{"base_path": "relative"}' WHERE id = 2`)
  const reports = await apply(world)
  t.match(reports.find(({ storage }) => storage === 'disk'), { status: 'completed', policy: null, deleted: { length: 2 } })
  t.match(reports.find(({ storage }) => storage === 'other'), { status: 'failed', deleted: [], error: /base_path/ })
  t.match(await world.sql('SELECT name, is_active, total_backups_deleted AS deleted FROM backup_retention_policies ORDER BY name'), [
    { name: 'without a policy: disk', is_active: false, deleted: 2 }, { name: 'without a policy: other', is_active: false, deleted: 0 }])
  t.match(await history(world), [{ status: 'completed', evaluated: 5, deleted: 2, kept: 3 }, { status: 'failed', evaluated: 4, deleted: 0, kept: 4 }])
  t.notOk(existsSync(other))
  await world.sql('DELETE FROM backup_executions WHERE storage_backend_id = 2')
  t.equal((await dropStorage(world.env, 'other')).name, 'other', 'a history of cleanups does not hold a storage')
  t.match(await history(world), [{ evaluated: 5 }])
})

t.test('a restore that begins while retention runs is seen, or fails before it begins', async (t) => {
  const world = await filled(t, 3)
  const { db } = world.catalog
  const recovery = { recovery_id: 'r', backup_execution_id: 2, source_backup_id: world.folders[1] ?? '', recovery_type: 'full_restore', restore_target: 'x', target_system: 'x', triggered_by: 'manual', restore_components: [] }
  let marking: ReturnType<typeof markExpiring> | undefined
  await db.transaction(async (tx) => {
    t.ok(await holdExecution(tx, 2))
    marking = markExpiring(db, 2)
    await wait(100)
    await insertRecovery(tx, recovery)
  })
  t.strictSame(await marking, { hindrance: 'restored' }, 'the mark waits for the restore that came first')
  t.match(await apply(world), [{ deleted: [world.folders[2]] }])
  await world.sql("UPDATE recovery_executions SET status = 'completed'")
  t.ok('row' in (await markExpiring(db, 2)))
  t.equal(await db.transaction((tx) => holdExecution(tx, 2)), undefined, 'one that comes later sees the mark')

  await world.sql('UPDATE backup_executions SET expiring_at = NULL, pinned = true WHERE id = 2')
  t.strictSame(await markExpiring(db, 2), { hindrance: 'pinned' })
  await world.sql("UPDATE backup_executions SET pinned = false WHERE id = 2")
  await world.put(9, 0, { copy_of: '2', status: `'pending'` })
  t.strictSame(await markExpiring(db, 2), { hindrance: 'copied' })
  t.strictSame(await markExpiring(db, 9), { hindrance: 'live' })
  const readBack = (seconds: number) => world.sql(`UPDATE backup_executions SET execution_metadata = execution_metadata::jsonb || jsonb_build_object('scrub', jsonb_build_object('worker', 'w', 'until', extract(epoch FROM now()) + ${seconds})), copy_of = NULL WHERE id IN (2, 9)`)
  await readBack(60)
  t.strictSame(await markExpiring(db, 2), { hindrance: 'verified' })
  t.match(await apply(world), [{ deleted: [] }], 'one that is being read back')
  await readBack(-1)
  t.match(await apply(world), [{ deleted: [world.folders[1]] }], 'until its reader is gone')
  t.strictSame(await markExpiring(db, 99), { hindrance: 'gone' })
})

t.test('several at once, and one that is stopped', async (t) => {
  const world = await filled(t, 8)
  await exclusively(world.catalog.url, 'retention', async () => t.rejects(apply(world), { code: 'retention.busy', retryable: true }))
  const stopped = new AbortController()
  stopped.abort(new Error('stop'))
  await t.rejects(applyRetention({ ...world.env, signal: stopped.signal }, {}, 'schedule'), { message: /stop|cancelled/ })
  t.match(await history(world), [{ status: 'failed', deleted: 0, kept: 8 }])
  const outcomes = await Promise.allSettled([apply(world), apply(world), apply(world)])
  t.ok(outcomes.some(({ status }) => status === 'fulfilled'))
  for (const outcome of outcomes) if (outcome.status === 'rejected') t.match(outcome.reason, { code: 'retention.busy' })
  t.same(await world.ids(), [1])
  t.match(await world.sql("SELECT count(*)::integer AS n, count(DISTINCT resource_id)::integer AS backups FROM backup_audit_logs WHERE event_type = 'backup.expired'"), [{ n: 7, backups: 7 }])
})

t.test('daemons do it once a day, and sweep', async (t) => {
  const world = await filled(t, 3)
  const old = new Date(Date.now() - 30 * 3_600_000)
  const put = (key: string): void => {
    mkdirSync(join(world.dir, key, '..'), { recursive: true })
    writeFileSync(join(world.dir, key), 'bytes')
    utimesSync(join(world.dir, key), old, old)
  }
  put('20200102T030405Z-dead-aaaaaa/database.dump')
  put('.backupd-partial/of-a-killed-process')
  const daemons = ['one', 'two', 'three'].map((workerId) => createUpkeep({ ...world.env, workerId, actor: { username: 'backupd', host: workerId } }))
  const round = () => Promise.all(daemons.map((daemon) => daemon.run()))
  await round()
  t.same(await world.ids(), [1])
  t.same(world.objects().map((key) => key.split('/')[0]).filter((folder) => folder !== world.folders[0]), [])
  const events = () => world.sql("SELECT event_type, status, count(*)::integer AS n FROM backup_audit_logs WHERE event_type IN ('retention.applied', 'storage.swept') GROUP BY 1, 2 ORDER BY 1, 2")
  t.match(await events(), [{ event_type: 'retention.applied', status: 'success', n: 1 }, { event_type: 'storage.swept', status: 'success', n: 1 }])
  t.match(await world.sql('SELECT triggered_by FROM backup_cleanup_history'), [{ triggered_by: 'schedule' }])
  await round()
  t.match(await events(), [{ n: 1 }, { n: 1 }], 'not again on the same day')
  // A day passes. What guards the trail would not have it.
  await world.sql("ALTER TABLE backup_audit_logs DISABLE TRIGGER USER; UPDATE backup_audit_logs SET created_at = created_at - interval '25 hours'; ALTER TABLE backup_audit_logs ENABLE TRIGGER USER")
  await world.sql(`UPDATE storage_backend_configs SET config_data = '{"base_path": "relative"}'`)
  await world.put(20, 30)
  await round()
  t.match(await events(), [{ event_type: 'retention.applied', status: 'success', n: 1 }, { event_type: 'retention.applied', status: 'warning', n: 1 }, { event_type: 'storage.swept' }], 'what fails is no more than a warning')
  await Promise.all(daemons.map((daemon) => daemon.stop()))
})
