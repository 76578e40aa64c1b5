import { and, desc, eq, inArray, isNull, lt } from '../../catalog/drizzle.js'
import { raiseAlert, resolveAlert, type Alert, type AlertExecution } from '../../catalog/alerts.js'
import type { Db } from '../../catalog/connect.js'
import { catalogReason } from '../../catalog/failures.js'
import type { Execution } from '../../catalog/executions.js'
import { jsonObject } from '../../catalog/json.js'
import { scheduleById } from '../../catalog/schedules.js'
import { backupExecutions } from '../../catalog/schema.js'
import { storageById } from '../../catalog/storages.js'
import type { ExecutionStatus } from '../../catalog/statuses.js'
import type { Environment } from '../environment.js'
import { isCopy } from '../folder.js'

const factsOf = (row: Execution): AlertExecution => {
  const { code, hint, stage } = jsonObject(row.error_details)
  return {
    id: row.id,
    backup_id: row.backup_id,
    status: row.status,
    kind: isCopy(row) ? 'copy' : 'backup',
    backup_type: row.backup_type,
    triggered_by: row.triggered_by,
    attempt: row.attempt,
    scheduled_for: row.scheduled_for,
    started_at: row.started_at,
    completed_at: row.completed_at,
    duration_seconds: row.duration_seconds,
    size_bytes: row.size_bytes,
    stored_bytes: row.compressed_size_bytes,
    verification_status: row.verification_status,
    error_code: code ?? null,
    error_stage: stage ?? null,
    error_message: row.error_message?.slice(0, 1000) ?? null,
    hint: hint ?? null,
  }
}

type About = Pick<Alert, 'schedule' | 'storage' | 'execution'>

const aboutOf = async (tx: Db, row: Execution): Promise<About> => {
  const schedule = row.schedule_id === null ? undefined : await scheduleById(tx, row.schedule_id)
  const storage = await storageById(tx, row.storage_backend_id)
  return {
    execution: factsOf(row),
    schedule: schedule === undefined ? undefined : { id: schedule.id, name: schedule.name },
    storage: storage === undefined ? undefined : { id: storage.id, name: storage.name },
  }
}

const ended: readonly ExecutionStatus[] = ['completed', 'verified', 'failed', 'corrupted']

/** Whether the run of the schedule that ended before this one ended badly. */
const failedBefore = async (tx: Db, row: Execution): Promise<boolean> => {
  if (row.schedule_id === null) return false
  const [before] = await tx.select({ status: backupExecutions.status }).from(backupExecutions)
    .where(and(eq(backupExecutions.schedule_id, row.schedule_id), lt(backupExecutions.id, row.id), isNull(backupExecutions.copy_of), inArray(backupExecutions.status, [...ended])))
    .orderBy(desc(backupExecutions.id)).limit(1)
  return before?.status === 'failed' || before?.status === 'corrupted'
}

const subject = (row: Execution, about: About): string => {
  const name = about.schedule === undefined ? row.backup_id : about.schedule.name
  return isCopy(row) ? `Copy of ${name} to ${about.storage?.name ?? 'another storage'}` : `Backup ${name}`
}
const reason = (row: Execution): string => row.error_message ?? 'no reason was recorded'
const keyOf = (row: Execution): string => (row.schedule_id === null ? `execution:${row.id}` : `schedule:${row.schedule_id}:${isCopy(row) ? 'copy' : 'backup'}`)

const failure = (row: Execution, about: About, again: boolean): Alert => {
  const { code } = jsonObject(row.error_details)
  return {
    ...about,
    event: 'failure',
    severity: again ? 'warning' : 'critical',
    title: `${subject(row, about)} failed${again ? ' and will be tried again' : ''}`,
    message: reason(row),
    details: { will_be_retried: again },
    dedupKey: `${keyOf(row)}:failed:${again ? 'again' : 'ended'}:${typeof code === 'string' ? code : 'unknown'}`,
  }
}

const damage = (row: Execution, about: About): Alert => ({
  ...about,
  event: 'corruption',
  severity: 'critical',
  title: `${subject(row, about)} is damaged in its storage`,
  message: reason(row),
  // Each damaged backup is news of its own.
  dedupKey: `${keyOf(row)}:corrupted:${row.id}`,
})

type Telling = Pick<Environment, 'log'>

// Reading what an alert tells may fail as well; in a savepoint, and the caller's transaction is as it was.
const quietly = async (env: Telling, db: Db, row: Execution, work: (tx: Db, about: About) => Promise<unknown>): Promise<void> => {
  try {
    await db.transaction(async (tx) => work(tx, await aboutOf(tx, row)))
  } catch (error) {
    env.log.warn({ execution: row.id, error: catalogReason(error) }, 'an alert could not be queued')
  }
}

/** Queues that a backup has begun; for pings, and who asked for it. Never throws. */
export const alertStart = async (env: Telling, db: Db, row: Execution): Promise<void> => {
  if (isCopy(row)) return
  await quietly(env, db, row, (tx, about) => raiseAlert(tx, {
    ...about, event: 'start', severity: 'info', title: `${subject(row, about)} has started`, message: `Execution ${row.id} runs.`, dedupKey: `execution:${row.id}:start`, repeatAfter: null,
  }, env.log))
}

const success = async (env: Telling, tx: Db, row: Execution, about: About): Promise<void> => {
  // One key, so that a notifier that wants both is told once.
  const common = {
    ...about, severity: 'info', dedupKey: `execution:${row.id}:success`, repeatAfter: null,
    message: `Execution ${row.id} stored ${row.compressed_size_bytes} bytes in ${row.duration_seconds ?? 0} s${row.status === 'verified' ? ' and was read back' : ''}.`,
  } as const
  // A copy that was made is news only to who was told of one that was not.
  const raise = !isCopy(row) && (await failedBefore(tx, row)) ? raiseAlert : resolveAlert
  await raise(tx, { ...common, event: 'first_success', title: `${subject(row, about)} works again`, resolves: `${keyOf(row)}:failed` }, env.log)
  if (!isCopy(row)) await raiseAlert(tx, { ...common, event: 'success', title: `${subject(row, about)} is done` }, env.log)
}

/**
 * Queues what the end of a run is worth telling, in its transaction. `again`: another attempt is queued, which makes a failure a warning.
 * Never throws.
 */
export const alertEnd = async (env: Telling, tx: Db, row: Execution, again: boolean): Promise<void> => {
  if (!ended.some((status) => status === row.status)) return
  await quietly(env, tx, row, async (inner, about) => {
    if (row.status === 'failed') await raiseAlert(inner, failure(row, about, again), env.log)
    else if (row.status === 'corrupted') await raiseAlert(inner, damage(row, about), env.log)
    else await success(env, inner, row, about)
  })
}

/** Queues what a later verification found: damage, or that what was damaged is whole again. Never throws. */
export const alertVerified = async (env: Telling, tx: Db, before: ExecutionStatus, row: Execution): Promise<void> => {
  if (row.status !== 'corrupted' && before !== 'corrupted') return
  await quietly(env, tx, row, (inner, about) => row.status === 'corrupted'
    ? raiseAlert(inner, damage(row, about), env.log)
    : raiseAlert(inner, {
      ...about, event: 'recovery', severity: 'info', title: `${subject(row, about)} is whole again`, message: `Execution ${row.id} was read back without an error.`,
      dedupKey: `execution:${row.id}:healed`, resolves: `${keyOf(row)}:corrupted:${row.id}`,
    }, env.log))
}
