import { sql as raw } from '../../src/catalog/drizzle.js'
import t from 'tap'
import type { Catalog } from '../../src/catalog/connect.js'
import {
  enqueue, findExecution, listExecutions, newestGoodBackups, removeExecution, requestCancel, updateExecution, type Enqueued,
} from '../../src/catalog/executions.js'
import { jsonList, jsonObject, jsonTexts } from '../../src/catalog/json.js'
import { activeKeys, findKey, insertKey, removeKey, retireKey, usesOfKey } from '../../src/catalog/keys.js'
import { listenForWork, notifyWork, type Work } from '../../src/catalog/notifications.js'
import { claim, claimAs, claimNext, endExpired, finish, listExpired, release, renewLease, transition, updateProgress } from '../../src/catalog/queue.js'
import {
  claimRecovery, failExpiredRecovery, findRecovery, insertRecovery, listExpiredRecoveries, listRecoveries, renewRecoveryLease,
  requestRecoveryCancel, statusHistory, transitionRecovery, updateRecoveryProgress,
} from '../../src/catalog/recoveries.js'
import {
  findSchedule, insertSchedule, lockDueSchedules, recordRun, removeSchedule, setNextRun, setScheduleActive, usesOfSchedule,
} from '../../src/catalog/schedules.js'
import { findSource, insertSource, removeSource, sourceById, updateSource, usesOfSource } from '../../src/catalog/sources.js'
import {
  findStorage, insertStorage, recordStorageHealth, refreshStorageTotals, removeStorage, setStorageActive, storageById, usesOfStorage,
} from '../../src/catalog/storages.js'
import { heartbeat, liveWorkers, registerWorker, removeWorker, sweepWorkers } from '../../src/catalog/workers.js'
import { applicationDdl } from './application.js'
import { catalogOn, serverFor } from './server.js'

const server = await serverFor(t)
let serial = 0

/** One storage, one source, one schedule, and a way to queue for it. */
const furnished = async (catalog: Catalog) => {
  const n = (serial += 1)
  const { db } = catalog
  const storage = await insertStorage(db, { name: `storage ${n}`, backend_type: 'local', config_data: { base_path: '/x' } })
  const source = await insertSource(db, { name: `source ${n}`, connection: { url: 'postgres://h/d' } })
  const schedule = await insertSchedule(db, {
    name: `schedule ${n}`, cron_expression: '@daily', backup_type: 'full', storage_backend_id: storage.id, source_id: source.id,
  })
  const queued = (more: Partial<Enqueued> = {}) => enqueue(db, {
    backup_id: `backup-${(serial += 1)}`, schedule_id: schedule.id, storage_backend_id: storage.id, source_id: source.id, backup_type: 'full',
    triggered_by: 'manual', ...more,
  })
  const enqueued = async (more: Partial<Enqueued> = {}) => {
    const row = await queued(more)
    if (row === undefined) throw new Error('not queued')
    return row
  }
  const letExpire = (id: number) => db.execute(raw`UPDATE backup_executions SET lease_expires_at = now() - interval '1 second' WHERE id = ${id}`)
  return { db, storage, source, schedule, queued, enqueued, letExpire }
}

for (const [kind, ddl] of [['of its own', ''], ['adopted', applicationDdl('nine')]] as const) {
  t.test(`a catalog ${kind}`, async (t) => {
    const catalog = await catalogOn(t, server, ddl)
    const { db, sql } = catalog

    t.test('JSON goes in and comes out as it is', async (t) => {
      const { enqueued } = await furnished(catalog)
      const values = [{ a: [1, { b: null }], c: 'x "y" \\u0000' }, [1, 'two'], 'text', '"123"', '123', 4.5, true, {}]
      for (const value of values) {
        const { id } = await enqueued({ schedule_id: null, execution_metadata: value, included_components: [value] })
        const row = await findExecution(db, id)
        t.strictSame(row?.execution_metadata, value)
        t.strictSame(row?.included_components, [value])
        const [plain] = await sql`SELECT json_typeof(execution_metadata::json) AS type FROM backup_executions WHERE id = ${id}`
        t.equal(plain?.['type'], Array.isArray(value) ? 'array' : typeof value, 'and is no text that holds JSON')
      }
      const { id } = await enqueued({ schedule_id: null, error_details: { stderr: 'a\0b \ud800 c' } })
      t.strictSame((await findExecution(db, id))?.error_details, { stderr: 'ab \ufffd c' })
      t.strictSame((await updateExecution(db, id, { size_bytes: 2 ** 50, warnings: null }))?.size_bytes, 2 ** 50)
    })

    t.test('names are exact, taken once, and free again after a removal', async (t) => {
      const { storage, source, schedule } = await furnished(catalog)
      t.equal((await findSource(db, source.name))?.id, source.id)
      t.equal(await findSource(db, source.name.toUpperCase()), undefined)
      t.equal(await findStorage(db, storage.name.replace('storage', 's%')), undefined)
      await t.rejects(insertSource(db, { name: source.name, connection: {} }), { code: 'source.exists', kind: 'usage' })
      await t.rejects(insertStorage(db, { name: storage.name, backend_type: 'local', config_data: {} }), { code: 'storage.exists' })
      await t.rejects(insertSchedule(db, { name: schedule.name, cron_expression: 'x', backup_type: 'full', storage_backend_id: storage.id }), { code: 'schedule.exists' })
      const many = await Promise.allSettled([1, 2, 3, 4].map(() => insertStorage(db, { name: `race ${source.id}`, backend_type: 'ftp', config_data: {} })))
      t.equal(many.filter(({ status }) => status === 'fulfilled').length, 1)
      const race = await findStorage(db, `race ${source.id}`)
      t.equal((await removeStorage(db, race?.id ?? 0))?.name, race?.name)
      t.equal(await removeStorage(db, race?.id ?? 0), undefined)
      await sql`INSERT INTO backup_schedules ${sql({ name: schedule.name, cron_expression: 'x', timezone: 'UTC', backup_type: 'full', storage_backend_id: storage.id,
        compression_type: 'gzip', encrypt_backup: true, verify_integrity: true, retention_days: 1, max_parallel_uploads: 1, is_active: true,
        total_runs: 0, successful_runs: 0, failed_runs: 0 })}`
      await t.rejects(findSchedule(db, schedule.name), { code: 'catalog.ambiguous' })
      await sql`DELETE FROM backup_schedules WHERE cron_expression = 'x'`
    })

    t.test('uses are found, and what is removed leaves its history', async (t) => {
      const { storage, source, schedule, enqueued } = await furnished(catalog)
      const { id } = await enqueued()
      t.strictSame(await usesOfSource(db, source.id), { schedules: [schedule.name], executions: 1 })
      t.strictSame(await usesOfStorage(db, storage.id), { schedules: [{ id: schedule.id, name: schedule.name, managed_by: null }], policies: [], executions: 1, cleanups: 0 })
      t.strictSame(await usesOfSchedule(db, schedule.id), { live: 1, executions: 1 })
      await t.rejects(removeStorage(db, storage.id))
      await requestCancel(db, id)
      t.strictSame(await usesOfSchedule(db, schedule.id), { live: 0, executions: 1 })
      t.equal((await removeSchedule(db, schedule.id))?.id, schedule.id)
      t.equal((await removeSource(db, source.id))?.id, source.id)
      t.match(await findExecution(db, id), { schedule_id: null, source_id: null, status: 'cancelled' })
      t.equal(await sourceById(db, source.id), undefined)
      t.equal((await removeExecution(db, id))?.id, id)
      t.strictSame(await usesOfStorage(db, storage.id), { schedules: [], policies: [], executions: 0, cleanups: 0 })
    })

    t.test('a schedule has one live execution, and a tick fires once', async (t) => {
      const { db, schedule, queued, enqueued } = await furnished(catalog)
      const tick = new Date('2026-11-23T02:00:00Z')
      const first = await enqueued({ scheduled_for: tick, triggered_by: 'schedule' })
      t.match(first, { status: 'pending', attempt: 1, progress: null })
      t.equal(await queued(), undefined, 'another one is live')
      await claim(db, first.id, 'w')
      t.equal(await queued(), undefined)
      await finish(db, first.id, { from: 'running', to: 'failed', worker: 'w' })
      t.equal(await queued({ scheduled_for: tick }), undefined, 'this tick has fired')
      t.ok(await queued({ scheduled_for: tick, attempt: 2, retry_of: first.id }), 'but may be tried again')
      await sql`INSERT INTO backup_executions ${sql({ backup_id: `theirs-${first.id}`, schedule_id: schedule.id, storage_backend_id: schedule.storage_backend_id,
        backup_type: 'full', triggered_by: 'manual', status: 'running', started_at: new Date(), size_bytes: 0, compressed_size_bytes: 0, compression_ratio: 1,
        included_components: '[]', verification_status: 'pending' })}`
      t.equal((await findExecution(db, `theirs-${first.id}`))?.attempt, null, 'rows of the other application are never in the way')
      const all = await Promise.all(Array.from({ length: 8 }, () => queued({ schedule_id: null, scheduled_for: tick })))
      t.equal(all.filter((row) => row !== undefined).length, 8, 'without a schedule there is nothing to hold to')
      for (const row of all) await requestCancel(db, row?.id ?? 0)
    })

    t.test('claims are exclusive and writes are fenced', async (t) => {
      const { db, enqueued, letExpire } = await furnished(catalog)
      const { id } = await enqueued()
      const claims = await Promise.all(['a', 'b', 'c', 'd'].map((worker) => claim(db, id, worker)))
      const [winner] = claims.filter((row) => row !== undefined)
      t.equal(claims.filter((row) => row !== undefined).length, 1)
      const worker = winner?.worker_id ?? ''
      const left = (winner?.lease_expires_at?.getTime() ?? 0) - (winner?.started_at.getTime() ?? 0)
      t.ok(left > 29_000 && left <= 30_100, 'a lease of 30 s by the database')
      t.strictSame(await renewLease(db, id, worker), { held: true, cancelRequested: false })
      t.strictSame(await renewLease(db, id, 'somebody else'), { held: false, cancelRequested: false })
      t.equal(await updateProgress(db, id, worker, { bytes: 5 }), true)
      t.match(await requestCancel(db, id), { status: 'running' })
      t.strictSame(await renewLease(db, id, worker), { held: true, cancelRequested: true })
      t.equal(await transition(db, id, { from: 'verifying', to: 'completed', worker }), undefined, 'not from another status')
      t.equal(await endExpired(db, id, { from: 'running', to: 'failed' }), undefined, 'not while the lease holds')

      await letExpire(id)
      t.ok((await listExpired(db)).some((row) => row.id === id))
      t.match(await renewLease(db, id, worker), { held: true }, 'nobody took it over, so it can be had back')
      t.notOk((await listExpired(db)).some((row) => row.id === id))
      await letExpire(id)
      const ends = await Promise.all([1, 2, 3].map(() => endExpired(db, id, { from: 'running', to: 'failed', set: { error_message: 'lost' } })))
      t.equal(ends.filter((row) => row !== undefined).length, 1)
      t.equal(await updateProgress(db, id, worker, { bytes: 6 }), false)
      t.equal(await transition(db, id, { from: 'failed', to: 'verifying', worker }), undefined)
      t.equal(await finish(db, id, { from: 'failed', to: 'completed', worker }), undefined)
      t.strictSame(await renewLease(db, id, worker), { held: false, cancelRequested: false })
      t.match(await findExecution(db, id), { status: 'failed', error_message: 'lost', lease_expires_at: null, completed_at: Date, progress: { bytes: 5 } })
    })

    t.test('a run from end to end, and a verification afterwards', async (t) => {
      const { db, storage, schedule, enqueued } = await furnished(catalog)
      const { id } = await enqueued()
      await claim(db, id, 'w')
      await db.execute(raw`UPDATE backup_executions SET started_at = clock_timestamp() - interval '90 seconds' WHERE id = ${id}`)
      t.match(await transition(db, id, { from: 'running', to: 'verifying', worker: 'w', set: { checksum: 'c' } }), { status: 'verifying', checksum: 'c' })
      const done = await finish(db, id, { from: 'verifying', to: 'completed', worker: 'w', set: { compressed_size_bytes: 10, size_bytes: 30 } })
      t.match(done, { status: 'completed', duration_seconds: 90, lease_expires_at: null, worker_id: 'w' })
      t.match(await claimAs(db, id, 'v', 'completed', 'verifying'), { status: 'verifying', worker_id: 'v' })
      t.match(await release(db, id, { from: 'verifying', to: 'corrupted', worker: 'v', set: { verification_status: 'corrupted' } }),
        { status: 'corrupted', duration_seconds: 90, completed_at: done?.completed_at ?? Date })
      const good = await enqueued()
      await claim(db, good.id, 'w')
      await finish(db, good.id, { from: 'running', to: 'completed', worker: 'w', set: { compressed_size_bytes: 7 } })
      const waiting = await enqueued()
      t.equal((await findExecution(db, `latest:${schedule.name}`))?.id, good.id)
      t.equal((await findExecution(db, `latest:${schedule.name}`, { anyStatus: true }))?.id, waiting.id)
      t.equal(await findExecution(db, 'latest:nothing of that name'), undefined)
      t.equal((await findExecution(db, good.backup_id))?.id, good.id)
      t.equal((await findExecution(db, String(good.id)))?.id, good.id)
      t.equal(await findExecution(db, '99999999999'), undefined)
      t.strictSame((await listExecutions(db, { schedule: schedule.id })).map((row) => row.id), [waiting.id, good.id, id])
      t.strictSame((await listExecutions(db, { storage: storage.id, status: ['completed', 'corrupted'], limit: 1 })).map((row) => row.id), [good.id])

      await recordRun(db, schedule.id, 'completed', good.started_at)
      await recordRun(db, schedule.id, 'failed', good.started_at)
      await recordRun(db, schedule.id, 'cancelled', good.started_at)
      t.match(await findSchedule(db, schedule.name), { total_runs: 3, successful_runs: 1, failed_runs: 1, last_status: 'cancelled', last_run_at: good.started_at })
      await refreshStorageTotals(db, storage.id)
      t.match(await storageById(db, storage.id), { total_backups: 1, total_size_bytes: 7 })
      await requestCancel(db, waiting.id)

      const copy = await enqueued({ copy_of: good.id })
      t.ok(await enqueued(), 'a copy does not occupy the schedule')
      await t.rejects(removeExecution(db, good.id), { code: 'execution.in_use', retryable: true })
      await requestCancel(db, copy.id)
      await removeExecution(db, good.id)
      t.equal((await findExecution(db, copy.id))?.copy_of, null)
    })

    t.test('the queue', async (t) => {
      const { db, enqueued } = await furnished(catalog)
      await db.execute(raw`UPDATE backup_executions SET status = 'cancelled' WHERE status = 'pending'`)
      const later = await enqueued({ schedule_id: null, not_before: new Date(Date.now() + 60_000) })
      const ids = []
      for (let n = 0; n < 12; n += 1) ids.push((await enqueued({ schedule_id: null })).id)
      const taken = (await Promise.all(Array.from({ length: 20 }, (_, n) => claimNext(db, `w${n}`)))).flatMap((row) => (row === undefined ? [] : [row.id]))
      t.strictSame(taken.sort((a, b) => a - b), ids, 'each once')
      t.equal((await findExecution(db, later.id))?.status, 'pending')
      t.match(await requestCancel(db, later.id), { status: 'cancelled', completed_at: Date })
      t.equal(await requestCancel(db, later.id), undefined)
      t.equal(await claim(db, later.id, 'w'), undefined)
    })

    t.test('due schedules go to one of two daemons', async (t) => {
      const { db, schedule } = await furnished(catalog)
      await db.execute(raw`UPDATE backup_schedules SET is_active = false WHERE id <> ${schedule.id}`)
      await setNextRun(db, schedule.id, new Date(Date.now() - 1000))
      await db.transaction(async (first) => {
        t.strictSame((await lockDueSchedules(first, 10)).map((row) => row.id), [schedule.id])
        t.strictSame(await db.transaction((second) => lockDueSchedules(second, 10)), [])
      })
      await setNextRun(db, schedule.id, new Date(Date.now() + 60_000))
      t.strictSame(await lockDueSchedules(db, 10), [])
      await setNextRun(db, schedule.id, null)
      t.equal((await lockDueSchedules(db, 10)).length, 1)
      await setScheduleActive(db, schedule.id, false)
      t.strictSame(await lockDueSchedules(db, 10), [])
    })

    t.test('recoveries keep their history', async (t) => {
      const { db, enqueued } = await furnished(catalog)
      const execution = await enqueued()
      const make = () => insertRecovery(db, {
        recovery_id: `recovery-${(serial += 1)}`, backup_execution_id: execution.id, source_backup_id: execution.backup_id, recovery_type: 'full_restore',
        restore_target: 'database', target_system: 'h/d', triggered_by: 'manual', restore_components: ['database'], recovery_config: { jobs: 2 },
      })
      const { id, recovery_id } = await make()
      t.equal((await claimRecovery(db, id, 'w'))?.status, 'preparing')
      t.equal(await claimRecovery(db, id, 'x'), undefined)
      t.equal(await transitionRecovery(db, id, { from: 'preparing', to: 'restoring', worker: 'x' }), undefined)
      await transitionRecovery(db, id, { from: 'preparing', to: 'restoring', worker: 'w' })
      t.ok(await updateRecoveryProgress(db, id, 'w', { bytes: 1 }))
      await requestRecoveryCancel(db, id)
      t.strictSame(await renewRecoveryLease(db, id, 'w'), { held: true, cancelRequested: true })
      const done = await transitionRecovery(db, id, { from: 'restoring', to: 'completed', worker: 'w', set: { validation_passed: true } })
      t.match(done, { status: 'completed', completed_at: Date, duration_seconds: Number, lease_expires_at: null, validation_passed: true, recovery_config: { jobs: 2 } })
      const history = statusHistory(done ?? await make())
      t.strictSame(history.map(({ status }) => status), ['pending', 'preparing', 'restoring', 'completed'])
      t.strictSame(history.map(({ at }) => Date.parse(at)), history.map(({ at }) => Date.parse(at)).sort((a, b) => a - b))
      t.equal((await findRecovery(db, recovery_id))?.id, id)
      t.equal((await findRecovery(db, id))?.id, id)
      t.equal(await requestRecoveryCancel(db, id), undefined)

      const second = await make()
      t.match(await requestRecoveryCancel(db, second.id), { status: 'cancelled' })
      const lost = await make()
      await claimRecovery(db, lost.id, 'w')
      t.equal(await failExpiredRecovery(db, lost.id, { error_message: 'lost' }), undefined)
      await db.execute(raw`UPDATE recovery_executions SET lease_expires_at = now(), recovery_config = '"garbage"' WHERE id = ${lost.id}`)
      t.strictSame((await listExpiredRecoveries(db)).map((row) => row.id), [lost.id])
      const failed = await failExpiredRecovery(db, lost.id, { error_message: 'lost' })
      t.strictSame(statusHistory(failed ?? lost).map(({ status }) => status), ['failed'])
      t.strictSame((await listRecoveries(db, { status: ['failed', 'cancelled'] })).map((row) => row.id), [lost.id, second.id])
      await requestCancel(db, execution.id)
      await removeExecution(db, execution.id)
      t.match(await findRecovery(db, id), { backup_execution_id: null, source_backup_id: execution.backup_id })
    })

    t.test('keys', async (t) => {
      const key = await insertKey(db, { name: 'a', recipient: 'age1a', fingerprint: 'f_a' })
      await t.rejects(insertKey(db, { name: 'b', recipient: 'age1a', fingerprint: 'x' }), { code: 'key.exists' })
      t.strictSame((await activeKeys(db)).map(({ name }) => name), ['a'])
      const { enqueued } = await furnished(catalog)
      await enqueued({ encryption_key_hash: 'f_a' })
      await enqueued({ schedule_id: null, encryption_key_hash: 'fxa' })
      t.strictSame(await usesOfKey(db, { fingerprint: 'f_a', recipient: 'age1a' }), { executions: 1 })
      t.ok((await retireKey(db, key.id))?.retired_at)
      t.equal(await retireKey(db, key.id), undefined)
      t.strictSame(await activeKeys(db), [])
      t.ok(await findKey(db, 'a'))
      t.ok(await removeKey(db, key.id))
      t.equal(await findKey(db, 'a'), undefined)
    })

    t.test('small things', async (t) => {
      const { storage, source } = await furnished(catalog)
      await recordStorageHealth(db, storage.id, false, 'x'.repeat(600))
      t.match(await storageById(db, storage.id), { is_healthy: false, health_check_message: 'x'.repeat(500), last_health_check: Date })
      t.equal((await setStorageActive(db, storage.id, false))?.is_active, false)
      t.strictSame((await updateSource(db, source.id, { connection: { url: 'u' } }))?.connection, { url: 'u' })
    })
  })
}

t.test('workers', async (t) => {
  const { db } = await catalogOn(t, server)
  const worker = { id: 'w1', kind: 'daemon', host: 'h', pid: 1, version: '0.1.0', state: 'running', details: { slots: 2 } } as const
  await registerWorker(db, worker)
  await registerWorker(db, { ...worker, state: 'draining' })
  await registerWorker(db, { ...worker, id: 'c1', kind: 'cli' })
  t.match(await liveWorkers(db, 'daemon'), [{ id: 'w1', state: 'draining', details: { slots: 2 } }])
  t.ok(await heartbeat(db, 'w1', 'running', { slots: 1 }))
  t.notOk(await heartbeat(db, 'nobody', 'running'))
  await db.execute(raw`UPDATE backup_workers SET lease_expires_at = now() - interval '2 hours' WHERE id = 'w1'`)
  t.strictSame((await liveWorkers(db)).map(({ id }) => id), ['c1'])
  t.equal(await sweepWorkers(db), 1)
  await removeWorker(db, 'c1')
  t.strictSame(await liveWorkers(db), [])
})

t.test('work is announced when it is committed, also after the connection was lost', async (t) => {
  const { db, sql } = await catalogOn(t, server)
  const heard: Work[] = []
  let connections = 0
  const stop = await listenForWork(sql, (work) => heard.push(work), () => { connections += 1 })
  const until = async (done: () => boolean): Promise<void> => {
    for (const deadline = Date.now() + 10_000; !done() && Date.now() < deadline;) await new Promise((resolve) => setTimeout(resolve, 10))
  }
  await t.rejects(db.transaction(async (tx) => {
    await notifyWork(tx, { kind: 'execution', id: 1 })
    throw new Error('undone')
  }))
  await notifyWork(db, { kind: 'cancel', id: 2 })
  await sql`SELECT pg_notify('backupd_work', 'nonsense'), pg_notify('backupd_work', '{"kind": "other", "id": 3}')`
  await until(() => heard.length > 0)
  t.strictSame(heard, [{ kind: 'cancel', id: 2 }])
  await sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'listen%' AND pid <> pg_backend_pid() AND datname = current_database()`
  await until(() => connections > 1)
  await notifyWork(db, { kind: 'schedule', id: 4 })
  await until(() => heard.length > 1)
  t.strictSame(heard[1], { kind: 'schedule', id: 4 })
  await stop()
})

t.test('JSON of anybody is read without trust', (t) => {
  t.strictSame(jsonObject({ a: 1 }), { a: 1 })
  t.strictSame(jsonObject('{"a": 1}'), { a: 1 }, 'also as text in JSON')
  for (const value of [null, undefined, [], 'x', '{', 5, true]) t.strictSame(jsonObject(value), {})
  t.strictSame(jsonList('[1]'), [1])
  for (const value of [null, {}, 'x', '[']) t.strictSame(jsonList(value), [])
  t.strictSame(jsonTexts(['a', 1, null, 'b']), ['a', 'b'])
  t.end()
})

t.test('the newest good backup of every schedule', async (t) => {
  const catalog = await catalogOn(t, server)
  const { db } = catalog
  // Ids of executions and schedules must differ, or a wrong join would do.
  await catalog.sql`SELECT setval('backup_executions_id_seq', 5000)`
  const [good, bad] = [await furnished(catalog), await furnished(catalog)]
  const run = async ({ enqueued }: typeof good, status: 'completed' | 'failed', day: number): Promise<void> => {
    const row = await enqueued()
    await updateExecution(db, row.id, { status, started_at: new Date(Date.UTC(2026, 10, day)) })
  }
  await run(good, 'completed', 3)
  await run(good, 'completed', 5)
  await run(good, 'failed', 7)
  await run(bad, 'failed', 7)
  t.strictSame(await newestGoodBackups(db), new Map([[good.schedule.id, new Date(Date.UTC(2026, 10, 5))]]))
})
