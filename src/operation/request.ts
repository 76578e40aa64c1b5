import { writeAudit } from '../audit/audit.js'
import { enqueue, findExecution, listExecutions, type Execution } from '../catalog/executions.js'
import { namedByFound } from '../catalog/found.js'
import { notifyWork } from '../catalog/notifications.js'
import { isManaged, type Schedule } from '../catalog/schedules.js'
import { findSource } from '../catalog/sources.js'
import { liveExecutionStatuses, type Trigger } from '../catalog/statuses.js'
import { BackupdError } from '../errors.js'
import { newBackupId } from '../repository/keys.js'
import type { Environment } from './environment.js'
import { refuseExpiring } from './expiring.js'
import { checkBackupType } from './plan.js'
import { scheduleNamed } from './settings/schedules.js'
import { DEFAULT_SOURCE } from './sources.js'

/** The schedule of that name. Fails with `schedule.not_found` (exit code 3). */
export const needSchedule = ({ catalog }: Environment, name: string): Promise<Schedule> => scheduleNamed(catalog.db, name)

/** Fails with `schedule.not_found` where there is neither a schedule of that name nor a backup that a rebuild of the catalog found under it. */
const needNamed = async (env: Environment, name: string): Promise<void> => {
  if (!(await namedByFound(env.catalog.db, name))) await needSchedule(env, name)
}

/** The execution that a user means by a number, a backup_id or `latest:SCHEDULE`. Fails with `execution.not_found` (exit code 3). */
export const needExecution = async (env: Environment, reference: string, options: { anyStatus?: boolean } = {}): Promise<Execution> => {
  if (reference.startsWith('latest:')) await needNamed(env, reference.slice('latest:'.length))
  const execution = await findExecution(env.catalog.db, reference, options)
  if (execution !== undefined) return execution
  const what = reference.startsWith('latest:') ? `schedule "${reference.slice('latest:'.length)}" has no good backup yet` : `there is no execution ${reference}`
  throw new BackupdError('execution.not_found', what, { kind: 'notFound', hint: 'EXECUTION is a number, a backup_id or latest:SCHEDULE; see "backupd list".' })
}

/** Fails with `execution.no_backup` or `backup.expiring` unless the execution ended with a backup that can be read. */
export const needBackup = (execution: Execution): Execution => {
  refuseExpiring(execution)
  if (['completed', 'verified', 'verifying', 'corrupted'].includes(execution.status)) return execution
  throw new BackupdError('execution.no_backup', `execution ${execution.id} is ${execution.status}: there is no backup to read`, { hint: execution.error_message ?? 'See "backupd show".' })
}

/** Puts a run of `schedule` into the queue. Fails with `schedule.busy` while one of it is waiting or running. */
export const requestBackup = async (env: Environment, schedule: Schedule, trigger: Trigger): Promise<Execution> => {
  const { db } = env.catalog
  checkBackupType(schedule.backup_type)
  const source = isManaged(schedule) ? null : (schedule.source_id ?? (await findSource(db, DEFAULT_SOURCE))?.id ?? null)
  const execution = await db.transaction(async (tx) => {
    const row = await enqueue(tx, {
      backup_id: newBackupId(new Date(), schedule.name),
      schedule_id: schedule.id,
      storage_backend_id: schedule.storage_backend_id,
      source_id: source,
      backup_type: schedule.backup_type,
      triggered_by: trigger,
    })
    if (row === undefined) return undefined
    await notifyWork(tx, { kind: 'execution', id: row.id })
    await writeAudit(tx, {
      event_type: 'backup.requested', event_category: 'backup', action: 'create', actor: env.actor,
      resource: { type: 'backup_execution', id: row.id, name: row.backup_id },
      event_data: { schedule: schedule.name, triggered_by: trigger }, correlation_id: row.backup_id,
    })
    return row
  })
  if (execution !== undefined) return execution
  const [live] = await listExecutions(db, { schedule: schedule.id, status: liveExecutionStatuses, copies: false, limit: 1 })
  throw new BackupdError('schedule.busy', `schedule "${schedule.name}" has a run that is ${live?.status ?? 'live'} already${live === undefined ? '' : `: execution ${live.id}`}`, {
    hint: 'Wait for it, or end it with "backupd cancel".',
    details: { execution_id: live?.id },
  })
}
