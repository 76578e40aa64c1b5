import { sql } from 'drizzle-orm'
import { writeAudit } from '../audit/audit.js'
import type { Db } from '../catalog/connect.js'
import { executionById, type Execution, type NewExecution } from '../catalog/executions.js'
import { clock } from '../catalog/leases.js'
import { notifyWork } from '../catalog/notifications.js'
import { claim, finish, release, renewLease, transition, updateProgress } from '../catalog/queue.js'
import { lockSchedule, recordRun, scheduleById } from '../catalog/schedules.js'
import type { ExecutionStatus } from '../catalog/statuses.js'
import { refreshStorageTotals, type StorageRow } from '../catalog/storages.js'
import { withWarnings } from '../catalog/warnings.js'
import { BackupdError, messageOf } from '../errors.js'
import type { Storage } from '../storage/storage.js'
import { version } from '../version.js'
import { backup, type StoredBackup } from './backup.js'
import { discardObjects } from './discard.js'
import type { Environment } from './environment.js'
import { errorDetails, errorMessage } from './failure.js'
import { keepLease, type Lease, type LeaseAnswer } from './lease.js'
import { persist } from './persist.js'
import { planBackup, type BackupPlan } from './plan.js'
import { createTracker, type Tracker } from './progress.js'
import { openStorageRow, storageRow } from './sources.js'
import { verifyStored } from './verification.js'

/** Asks the catalog for the lease of an execution, and takes the progress along. */
export const leaseAnswer = async (env: Environment, id: number, progress: unknown): Promise<LeaseAnswer> => {
  const { held, cancelRequested } = await renewLease(env.catalog.db, id, env.workerId)
  if (!held) return 'lost'
  await updateProgress(env.catalog.db, id, env.workerId, progress)
  return cancelRequested ? 'cancel' : 'held'
}

const configUsed = (plan: BackupPlan, storage: StorageRow): Record<string, unknown> => ({
  schedule: plan.scheduleName,
  source: plan.sourceName,
  storage: storage.name,
  storage_type: storage.backend_type,
  backup_type: plan.backupType,
  compression_type: plan.compression,
  compression_level: plan.compressionLevel ?? null,
  encrypt_backup: plan.recipients.length > 0,
  verify_integrity: plan.verify,
  include_patterns: plan.include,
  exclude_patterns: plan.exclude,
  bandwidth_limit_mbps: plan.bandwidthMbps ?? null,
  max_parallel_uploads: plan.parallelUploads,
})

const stored = ({ manifest, text, checksum, keyHash, plainSize, storedSize }: StoredBackup, tracker: Tracker): Partial<NewExecution> => ({
  size_bytes: plainSize,
  compressed_size_bytes: storedSize,
  compression_ratio: storedSize === 0 ? 1 : plainSize / storedSize,
  included_components: manifest.parts.map(({ kind }) => kind),
  checksum,
  encryption_key_hash: keyHash,
  warnings: withWarnings(tracker.warnings),
  execution_metadata: {
    manifest: text,
    tool_version: version,
    server_version: manifest.server_version,
    pg_dump_version: manifest.pg_dump_version,
  },
  progress: { ...tracker.progress },
})

/** The audit row of a run that has ended. */
const audit = (env: Environment, execution: Execution, event: string, status: 'success' | 'failure' | 'warning', data: Record<string, unknown>) => ({
  event_type: event,
  event_category: 'backup' as const,
  action: 'execute' as const,
  status,
  actor: env.actor,
  resource: { type: 'backup_execution', id: String(execution.id), name: execution.backup_id },
  event_data: { schedule_id: execution.schedule_id, triggered_by: execution.triggered_by, ...data },
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

// One transaction for the row, the statistics and the audit trail: they are true together or not at all.
const end = (env: Environment, execution: Execution, { from, to, set }: Ending, data: Record<string, unknown> = {}): Promise<Execution | undefined> =>
  persist(() => env.catalog.db.transaction(async (tx) => {
    if (execution.schedule_id !== null) await lockSchedule(tx, execution.schedule_id)
    const row = await (from === 'verifying' ? release : finish)(tx, execution.id, { from, to, worker: env.workerId, set })
    if (row === undefined) return done(tx, env, execution, to)
    if (row.schedule_id !== null) await recordRun(tx, row.schedule_id, to, row.started_at)
    await env.ended?.(tx, row)
    await refreshStorageTotals(tx, row.storage_backend_id)
    await writeAudit(tx, audit(env, row, `backup.${to}`, to === 'completed' ? 'success' : to === 'cancelled' ? 'warning' : 'failure', {
      size_bytes: row.size_bytes, checksum: row.checksum, ...data,
    }))
    await notifyWork(tx, { kind: 'execution', id: row.id })
    return row
  }), env.log)

/** What was stored belongs to an execution that another worker has ended as failed, so it goes. */
const giveUp = async (env: Environment, execution: Execution, storage: Storage): Promise<never> => {
  await discardObjects(storage, execution.backup_id, env.log)
  throw new BackupdError('lease.lost', 'another worker has ended this execution; what this one stored was removed')
}

interface Running {
  env: Environment
  execution: Execution
  tracker: Tracker
  lease: Lease
}

/** Records a failure with its reason, after what was stored has been removed. */
const fail = async ({ env, execution, tracker }: Running, storage: Storage | undefined, error: unknown): Promise<void> => {
  const remaining = storage === undefined ? [] : await discardObjects(storage, execution.backup_id, env.log)
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
    env.log.error({ execution: execution.id, error: messageOf(secondary) }, 'the failure could not be recorded')
  })
}

/** Ends the run as stored; with `verify` it is `verifying` first, and what is found out decides. */
const settle = async (running: Running, plan: BackupPlan, storage: Storage, result: StoredBackup): Promise<Execution> => {
  const { env, execution, tracker } = running
  const set = stored(result, tracker)
  if (!plan.verify) {
    const row = await end(env, execution, { from: 'running', to: 'completed', set: { ...set, verification_status: 'skipped' } })
    return row ?? giveUp(env, execution, storage)
  }
  const verifying = await persist(async () => (await transition(env.catalog.db, execution.id, {
    from: 'running', to: 'verifying', worker: env.workerId,
    set: { ...set, completed_at: clock as unknown as Date, duration_seconds: sql`greatest(0, round(extract(epoch FROM clock_timestamp() - started_at)))::integer` as unknown as number },
  })) ?? done(env.catalog.db, env, execution, 'verifying'), env.log)
  if (verifying === undefined) return giveUp(env, execution, storage)
  const outcome = await verifyStored(env, { execution: verifying, storage, tracker, signal: running.lease.signal })
  const row = await end(env, verifying, { from: 'verifying', to: outcome.status, set: { ...outcome.set, warnings: withWarnings(tracker.warnings), progress: { ...tracker.progress } } }, outcome.event)
  if (row === undefined) throw new BackupdError('lease.lost', 'another worker took over while the backup was verified; the backup itself is stored')
  if (outcome.error !== undefined) throw outcome.error
  return row
}

export interface RunOptions {
  /** Told of the tracker before the work begins. */
  onTracker?: (tracker: Tracker) => void
  /** In place of what the execution's schedule says. */
  plan?: BackupPlan
}

/**
 * Takes a pending execution and carries it to its end: one backup, recorded. Resolves to the completed row; rejects with the reason
 * after the row says `failed`, `cancelled` or `corrupted`, and nothing that looks like a backup is left of one that failed.
 */
export const runExecution = async (env: Environment, id: number, options: RunOptions = {}): Promise<Execution> => {
  const execution = await claim(env.catalog.db, id, env.workerId)
  if (execution === undefined) throw new BackupdError('execution.taken', `execution ${id} is not waiting any more`)
  return runClaimed(env, execution, options)
}

const planOf = async (env: Environment, execution: Execution): Promise<BackupPlan> => {
  const schedule = execution.schedule_id === null ? undefined : await scheduleById(env.catalog.db, execution.schedule_id)
  if (schedule === undefined) throw new BackupdError('schedule.gone', 'the schedule of this execution is gone', { kind: 'notFound' })
  return planBackup(env, schedule)
}

/** Plans, opens the storage and takes the backup; what fails on the way is recorded, and what was stored is removed. */
const produce = async (running: Running, given: BackupPlan | undefined): Promise<{ plan: BackupPlan; storage: Storage; result: StoredBackup }> => {
  const { env, execution, tracker, lease } = running
  let storage: Storage | undefined
  try {
    const plan = given ?? (await planOf(env, execution))
    const row = await storageRow(env, execution.storage_backend_id)
    storage = await openStorageRow(env, row, plan.parallelUploads)
    await transition(env.catalog.db, execution.id, {
      from: 'running', to: 'running', worker: env.workerId,
      set: { backup_config: configUsed(plan, row), storage_location: storage.location(execution.backup_id) },
    })
    env.log.info({ schedule: plan.scheduleName, source: plan.sourceName, storage: row.name }, 'backup started')
    const { backup_id: backupId, started_at: startedAt } = execution
    const result = await backup({ backupId, startedAt, plan, storage, tracker, lease, stallTimeout: env.config.stallTimeout })
    return { plan, storage, result }
  } catch (error) {
    await fail(running, storage, error)
    await storage?.close().catch((secondary: unknown) => env.log.warn({ error: messageOf(secondary) }, 'closing the storage failed'))
    throw error
  }
}

/** Like `runExecution`, for an execution that this worker has claimed. */
export const runClaimed = async (outer: Environment, execution: Execution, { onTracker, plan: given }: RunOptions = {}): Promise<Execution> => {
  const log = outer.log.child({ execution: execution.id, backup_id: execution.backup_id })
  const env = { ...outer, log }
  const tracker = createTracker((warning) => log.warn(warning))
  onTracker?.(tracker)
  const lease = keepLease(() => leaseAnswer(env, execution.id, tracker.progress), env.signal, log)
  const running: Running = { env, execution, tracker, lease }
  try {
    const { plan, storage, result } = await produce(running, given)
    try {
      const row = await settle(running, plan, storage, result)
      log.info({ bytes: row.size_bytes, stored: row.compressed_size_bytes, seconds: row.duration_seconds }, 'backup completed')
      return row
    } finally {
      await storage.close().catch((error: unknown) => log.warn({ error: messageOf(error) }, 'closing the storage failed'))
    }
  } catch (error) {
    log.error({ err: error }, 'backup failed')
    throw error
  } finally {
    await lease.release()
  }
}
