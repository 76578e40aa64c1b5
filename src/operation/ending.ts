import { sql } from '../catalog/drizzle.js'
import { writeAudit } from '../audit/audit.js'
import type { Db } from '../catalog/connect.js'
import { executionById, type Execution, type NewExecution } from '../catalog/executions.js'
import { catalogReason } from '../catalog/failures.js'
import { clock } from '../catalog/leases.js'
import { notifyWork } from '../catalog/notifications.js'
import { finish, release, renewLease, transition, updateProgress } from '../catalog/queue.js'
import { lockSchedule, recordRun } from '../catalog/schedules.js'
import type { ExecutionStatus } from '../catalog/statuses.js'
import { refreshStorageTotals } from '../catalog/storages.js'
import { withWarnings } from '../catalog/warnings.js'
import { BackupdError } from '../errors.js'
import type { Storage } from '../storage/storage.js'
import { version } from '../version.js'
import { alertEnd } from './alerts/alerts.js'
import type { StoredBackup } from './backup.js'
import { noteCopyFailure, queueCopy } from './copy-queue.js'
import { discardStored } from './discard-stored.js'
import type { Environment } from './environment.js'
import { errorDetails, errorMessage } from './failure.js'
import { isCopy } from './folder.js'
import type { Lease, LeaseAnswer } from './lease.js'
import { persist } from './persist.js'
import type { Tracker } from './progress.js'
import { verifyStored } from './verification.js'
import type { VerifyLevel } from './verify.js'

/** An execution that this worker has claimed and is at work on. */
export interface Running {
  env: Environment
  execution: Execution
  tracker: Tracker
  lease: Lease
}

/** What a run has brought into its storage, whole; the storage is still open. */
export interface Stored {
  storage: Storage
  result: StoredBackup
  /** For the row's `execution_metadata`, beside what is always there. */
  metadata?: Record<string, unknown>
  /** Whether to read it back before it is called good, and how deeply; undefined: as deeply as the keys at hand allow. */
  verify: boolean
  level?: VerifyLevel
}

/** Asks the catalog for the lease of an execution, and takes the progress along. */
export const leaseAnswer = async (env: Environment, id: number, progress: unknown): Promise<LeaseAnswer> => {
  const { held, cancelRequested } = await renewLease(env.catalog.db, id, env.workerId)
  if (!held) return 'lost'
  await updateProgress(env.catalog.db, id, env.workerId, progress)
  return cancelRequested ? 'cancel' : 'held'
}

const columnsOf = ({ result, metadata }: Stored, tracker: Tracker): Partial<NewExecution> => {
  const { manifest, text, checksum, keyHash, plainSize, storedSize } = result
  return {
    size_bytes: plainSize,
    compressed_size_bytes: storedSize,
    compression_ratio: storedSize === 0 ? 1 : plainSize / storedSize,
    included_components: manifest.parts.map(({ kind }) => kind),
    checksum,
    encryption_key_hash: keyHash,
    warnings: withWarnings(tracker.warnings),
    execution_metadata: {
      ...metadata,
      manifest: text,
      tool_version: version,
      server_version: manifest.server_version,
      pg_dump_version: manifest.pg_dump_version,
    },
    progress: { ...tracker.progress },
  }
}

/** The audit row of a run that has ended. */
const audit = (env: Environment, execution: Execution, event: string, status: 'success' | 'failure' | 'warning', data: Record<string, unknown>) => ({
  event_type: `${isCopy(execution) ? 'copy' : 'backup'}.${event}`,
  event_category: 'backup' as const,
  action: 'execute' as const,
  status,
  actor: env.actor,
  resource: { type: 'backup_execution', id: String(execution.id), name: execution.backup_id },
  event_data: { schedule_id: execution.schedule_id, triggered_by: execution.triggered_by, ...(execution.copy_of === null ? {} : { copy_of: execution.copy_of }), ...data },
})

interface Ending {
  from: ExecutionStatus
  to: ExecutionStatus
  set: Partial<NewExecution>
}

// A connection may be lost after a commit and before its answer: then the change is there, and a second attempt finds nothing to do.
const done = async (db: Db, env: Environment, execution: Execution, status: ExecutionStatus): Promise<Execution | undefined> => {
  const row = await executionById(db, execution.id)
  return row?.status === status && row.worker_id === env.workerId ? row : undefined
}

/**
 * What the end of an execution changes beside its own row, in the same transaction: statistics, what comes next, and word to everybody.
 * The schedule must be locked. A copy counts for no run of its schedule.
 */
export const afterEnd = async (env: Environment, tx: Db, row: Execution): Promise<void> => {
  if (row.schedule_id !== null && !isCopy(row)) await recordRun(tx, row.schedule_id, row.status as ExecutionStatus, row.started_at)
  await noteCopyFailure(tx, row)
  await queueCopy(env, tx, row)
  const again = (await env.ended?.(tx, row)) ?? false
  await alertEnd(env, tx, row, again)
  await refreshStorageTotals(tx, row.storage_backend_id)
  await notifyWork(tx, { kind: 'execution', id: row.id })
}

// One transaction for the row, the statistics and the audit trail: they are true together or not at all.
const end = (env: Environment, execution: Execution, { from, to, set }: Ending, data: Record<string, unknown> = {}): Promise<Execution | undefined> =>
  persist(() => env.catalog.db.transaction(async (tx) => {
    if (execution.schedule_id !== null) await lockSchedule(tx, execution.schedule_id)
    const row = await (from === 'verifying' ? release : finish)(tx, execution.id, { from, to, worker: env.workerId, set })
    if (row === undefined) return done(tx, env, execution, to)
    await afterEnd(env, tx, row)
    await writeAudit(tx, audit(env, row, to, to === 'completed' ? 'success' : to === 'cancelled' ? 'warning' : 'failure', {
      size_bytes: row.size_bytes, checksum: row.checksum, ...data,
    }))
    return row
  }), env.log)

/** What was stored belongs to an execution that another worker has ended as failed, so it goes. */
const giveUp = async (env: Environment, execution: Execution, storage: Storage): Promise<never> => {
  await discardStored(env, execution, storage)
  throw new BackupdError('lease.lost', 'another worker has ended this execution; what this one stored was removed')
}

/** Records a failure with its reason, after what was stored has been removed. Undefined for the storage: nothing was stored. */
export const failRun = async ({ env, execution, tracker }: Running, storage: Storage | undefined, error: unknown): Promise<void> => {
  const remaining = storage === undefined ? [] : await discardStored(env, execution, storage)
  if (remaining.length > 0) tracker.warn(`not removed from the storage: ${remaining.join(', ')}`)
  const cancelled = error instanceof BackupdError && error.code === 'cancelled'
  const details = errorDetails(error, tracker.progress.stage)
  await end(env, execution, {
    from: 'running',
    to: cancelled ? 'cancelled' : 'failed',
    set: {
      error_message: errorMessage(error), error_details: details, warnings: withWarnings(tracker.warnings), progress: { ...tracker.progress },
      verification_status: 'skipped',
    },
  }, { code: details['code'], stage: details['stage'] }).catch((secondary: unknown) => {
    // The first error is the one to tell; the row's lease runs out, and another worker ends it.
    env.log.error({ execution: execution.id, error: catalogReason(secondary) }, 'the failure could not be recorded')
  })
}

/** Ends the run as stored; with `verify` it is `verifying` first, and what is found out decides. */
export const settleRun = async ({ env, execution, tracker, lease }: Running, stored: Stored): Promise<Execution> => {
  const { storage, verify, level } = stored
  const set = columnsOf(stored, tracker)
  if (!verify) {
    const row = await end(env, execution, { from: 'running', to: 'completed', set: { ...set, verification_status: 'skipped' } })
    return row ?? giveUp(env, execution, storage)
  }
  const verifying = await persist(async () => (await transition(env.catalog.db, execution.id, {
    from: 'running', to: 'verifying', worker: env.workerId,
    set: { ...set, completed_at: clock as unknown as Date, duration_seconds: sql`greatest(0, round(extract(epoch FROM clock_timestamp() - started_at)))::integer` as unknown as number },
  })) ?? done(env.catalog.db, env, execution, 'verifying'), env.log)
  if (verifying === undefined) return giveUp(env, execution, storage)
  const outcome = await verifyStored(env, { execution: verifying, storage, tracker, signal: lease.signal, ...(level === undefined ? {} : { level }) })
  const row = await end(env, verifying, { from: 'verifying', to: outcome.status, set: { ...outcome.set, warnings: withWarnings(tracker.warnings), progress: { ...tracker.progress } } }, outcome.event)
  if (row === undefined) throw new BackupdError('lease.lost', 'another worker took over while the backup was verified; the backup itself is stored')
  if (outcome.error !== undefined) throw outcome.error
  return row
}
