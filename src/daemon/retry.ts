import type { Db } from '../catalog/connect.js'
import { enqueue, type Enqueued, type Execution } from '../catalog/executions.js'
import { databaseTime } from '../catalog/attention.js'
import { jsonObject } from '../catalog/json.js'
import { notifyWork } from '../catalog/notifications.js'
import { scheduleById } from '../catalog/schedules.js'
import { newCopyId } from '../operation/copy-queue.js'
import type { Environment } from '../operation/environment.js'
import { folderOf, isCopy } from '../operation/folder.js'
import { newBackupId } from '../repository/keys.js'

/** Codes of ends that are no fault of the backup: its daemon was stopped, or died. */
export const STOPPED = 'daemon.stopped'
export const LOST = 'lease.expired'

/** How often a run and those before it were cut by a drain; that is not counted as an attempt. */
const interruptions = (execution: Execution): number => {
  const { interruptions: count } = jsonObject(execution.execution_metadata)
  return typeof count === 'number' ? count : 0
}

/**
 * Whether a run that has ended should be tried again. Cut by a drain: always, whoever asked for it. Its daemon lost: as long as
 * attempts are left, whoever asked for it. Failed or damaged by itself: only when the clock started it (who ran it by hand has seen
 * it fail), and only when it may end otherwise without anybody changing anything; a copy, which asks nothing of a database, only when
 * the error says so.
 */
export const deservesRetry = (execution: Execution, retries: number): boolean => {
  if (execution.schedule_id === null || execution.attempt === null) return false
  // A copy whose original is gone has nothing to copy.
  if (isCopy(execution) && execution.copy_of === null) return false
  if (execution.status !== 'failed' && execution.status !== 'corrupted') return false
  const { code, kind, retryable } = jsonObject(execution.error_details)
  if (code === STOPPED) return true
  if (execution.attempt - interruptions(execution) > retries) return false
  if (code === LOST) return true
  return execution.triggered_by === 'schedule' && (retryable === true || (!isCopy(execution) && !['usage', 'configuration', 'notFound'].includes(String(kind))))
}

// A fifth more or less, so that what failed together is not tried again together.
const spread = (delay: number): number => delay * (0.8 + 0.4 * Math.random())

/** What the next attempt of a copy has in place of a backup's. */
const copyAgain = (ended: Execution, stopped: boolean): Partial<Enqueued> => {
  if (!isCopy(ended)) return {}
  const folder = folderOf(ended)
  return {
    backup_id: newCopyId(folder),
    copy_of: ended.copy_of,
    backup_config: ended.backup_config,
    execution_metadata: { stored_as: folder, interruptions: interruptions(ended) + (stopped ? 1 : 0) },
  }
}

/** Queues the next attempt of a run that has ended, in the transaction that ended it. Undefined when there is to be none. */
export const queueRetry = async (
  env: Pick<Environment, 'config' | 'log'>, tx: Db, ended: Execution, delay: (attempt: number) => number,
): Promise<Execution | undefined> => {
  if (!deservesRetry(ended, env.config.retries) || ended.schedule_id === null) return undefined
  const schedule = await scheduleById(tx, ended.schedule_id)
  if (schedule === undefined || (ended.triggered_by === 'schedule' && !schedule.is_active && !isCopy(ended))) return undefined
  const attempt = ended.attempt ?? 1
  const stopped = jsonObject(ended.error_details)['code'] === STOPPED
  const now = await databaseTime(tx)
  const counted = attempt - interruptions(ended)
  const next = await enqueue(tx, {
    backup_id: newBackupId(now, schedule.name),
    schedule_id: ended.schedule_id,
    storage_backend_id: ended.storage_backend_id,
    source_id: ended.source_id,
    backup_type: ended.backup_type,
    triggered_by: ended.triggered_by,
    trigger_user_id: ended.trigger_user_id,
    scheduled_for: ended.scheduled_for,
    attempt: attempt + 1,
    retry_of: ended.id,
    not_before: stopped ? now : new Date(now.getTime() + spread(delay(counted))),
    execution_metadata: { interruptions: interruptions(ended) + (stopped ? 1 : 0) },
    ...copyAgain(ended, stopped),
  })
  if (next === undefined) {
    env.log.info({ execution: ended.id, schedule: schedule.name }, 'not tried again: another run of the schedule is waiting')
    return undefined
  }
  await notifyWork(tx, { kind: 'execution', id: next.id })
  env.log.info({ execution: next.id, retry_of: ended.id, schedule: schedule.name, attempt: next.attempt, begins: next.not_before }, 'the run will be tried again')
  return next
}
