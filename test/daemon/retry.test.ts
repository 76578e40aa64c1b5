import t from 'tap'
import { readConfig } from '../../src/config.js'
import { enqueue, type Execution } from '../../src/catalog/executions.js'
import { claim, finish } from '../../src/catalog/queue.js'
import { insertSchedule, setScheduleActive } from '../../src/catalog/schedules.js'
import { insertStorage } from '../../src/catalog/storages.js'
import { LOST, STOPPED, deservesRetry, queueRetry } from '../../src/daemon/retry.js'
import { silentLog } from '../../src/log.js'
import { catalogOn, serverFor } from '../catalog/server.js'

const ended = (more: Partial<Execution>, code = 'dump.failed', details: Record<string, unknown> = {}): Execution =>
  ({ id: 1, schedule_id: 1, copy_of: null, attempt: 1, status: 'failed', triggered_by: 'schedule', error_details: { code, kind: 'failed', ...details }, execution_metadata: null, ...more }) as Execution

t.test('what deserves another attempt', (t) => {
  const cases: [string, boolean, Execution][] = [
    ['a failure', true, ended({})],
    ['the last attempt', false, ended({ attempt: 3 })],
    ['the last but one', true, ended({ attempt: 2 })],
    ['of one that a user started', false, ended({ triggered_by: 'manual' })],
    ['a cancelled one', false, ended({ status: 'cancelled' })],
    ['a good one', false, ended({ status: 'completed' })],
    ['a damaged one', true, ended({ status: 'corrupted' }, 'integrity.corrupted', { kind: 'integrity' })],
    ['missing tools', false, ended({}, 'tools.missing', { kind: 'configuration' })],
    ['an unsupported type', false, ended({}, 'schedule.backup_type', { kind: 'usage' })],
    ['a catalog that was away', true, ended({}, 'catalog.unreachable', { kind: 'configuration', retryable: true })],
    ['cut by a drain', true, ended({ attempt: 9 }, STOPPED)],
    ['cut by a drain, started by a user', true, ended({ triggered_by: 'manual' }, STOPPED)],
    ['a daemon that died', true, ended({ triggered_by: 'manual' }, LOST)],
    ['daemons that died every time', false, ended({ attempt: 3 }, LOST)],
    ['drains are not counted', true, ended({ attempt: 5, execution_metadata: { interruptions: 3 } })],
    ['but failures are', false, ended({ attempt: 6, execution_metadata: { interruptions: 3 } })],
    ['without a schedule', false, ended({ schedule_id: null })],
    ['a copy', false, ended({ copy_of: 3 })],
    ['a copy, of a storage that was away', true, ended({ copy_of: 3 }, 'storage.unreachable', { retryable: true })],
    ['a copy that was cut by a drain', true, ended({ copy_of: 3 }, STOPPED)],
    ['a copy of which the original is gone', false, ended({ execution_metadata: { stored_as: 'folder' } }, STOPPED)],
    ['of the other application', false, ended({ attempt: null })],
  ]
  for (const [name, wanted, execution] of cases) t.equal(deservesRetry(execution, 2), wanted, name)
  t.equal(deservesRetry(ended({}), 0), false, 'BACKUPD_RETRIES=0')
  t.end()
})

t.test('the next attempt', async (t) => {
  const { db, sql } = await catalogOn(t, await serverFor(t))
  const env = { config: readConfig({ BACKUPD_STATE_DIR: '/nonexistent' }), log: silentLog() }
  const storage = await insertStorage(db, { name: 'disk', backend_type: 'local', config_data: { base_path: '/x' } })
  const schedule = await insertSchedule(db, { name: 'nightly', cron_expression: '@daily', backup_type: 'full', storage_backend_id: storage.id })
  const scheduled_for = new Date('2026-11-23T02:00:00Z')
  const failed = async (row: Execution | undefined, details: Record<string, unknown>): Promise<Execution> => {
    if (row === undefined) throw new Error('not queued')
    await claim(db, row.id, 'w')
    const done = await finish(db, row.id, { from: 'running', to: 'failed', worker: 'w', set: { error_details: details } })
    if (done === undefined) throw new Error('not ended')
    return done
  }
  const queued = await enqueue(db, { backup_id: 'b1', schedule_id: schedule.id, storage_backend_id: storage.id, backup_type: 'full', triggered_by: 'schedule', scheduled_for })
  const one = await failed(queued, { code: 'dump.failed', kind: 'failed' })
  const delays: number[] = []
  const delay = (attempt: number): number => {
    delays.push(attempt)
    return 60_000
  }
  const second = await queueRetry(env, db, one, delay)
  t.match(second, { status: 'pending', attempt: 2, retry_of: one.id, scheduled_for, schedule_id: schedule.id, triggered_by: 'schedule' })
  const [wait] = await sql`SELECT extract(epoch FROM not_before - created_at) AS seconds FROM backup_executions WHERE id = ${second?.id ?? 0}`
  t.ok(Number(wait?.['seconds']) >= 47 && Number(wait?.['seconds']) <= 73, `a minute, a fifth more or less: ${String(wait?.['seconds'])}`)

  const two = await failed(second, { code: STOPPED, kind: 'failed' })
  const third = await queueRetry(env, db, two, delay)
  t.match(third, { attempt: 3, execution_metadata: { interruptions: 1 } })
  t.ok((third?.not_before?.getTime() ?? Infinity) <= Date.now() + 1_000, 'at once')
  const fourth = await queueRetry(env, db, await failed(third, { code: LOST, kind: 'failed' }), delay)
  t.match(fourth, { attempt: 4, execution_metadata: { interruptions: 1 } })
  t.strictSame(delays, [1, 2], 'the backoff goes by the attempts that failed')
  t.equal(await queueRetry(env, db, await failed(fourth, { code: 'dump.failed', kind: 'failed' }), delay), undefined, 'enough')

  const other = await enqueue(db, { backup_id: 'b2', schedule_id: schedule.id, storage_backend_id: storage.id, backup_type: 'full', triggered_by: 'schedule', scheduled_for: new Date('2026-11-24T02:00:00Z') })
  const late = await failed(other, { code: 'dump.failed', kind: 'failed' })
  await enqueue(db, { backup_id: 'b3', schedule_id: schedule.id, storage_backend_id: storage.id, backup_type: 'full', triggered_by: 'manual' })
  t.equal(await queueRetry(env, db, late, delay), undefined, 'another run is there already')
  await sql`DELETE FROM backup_executions WHERE backup_id = 'b3'`
  await setScheduleActive(db, schedule.id, false)
  t.equal(await queueRetry(env, db, late, delay), undefined, 'not for a schedule that was switched off')
})
