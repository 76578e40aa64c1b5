import { auditHead } from '../audit/anchor.js'
import type { Execution } from '../catalog/executions.js'
import { claim, transition } from '../catalog/queue.js'
import { scheduleById } from '../catalog/schedules.js'
import type { StorageRow } from '../catalog/storages.js'
import { BackupdError, messageOf } from '../errors.js'
import type { Storage } from '../storage/storage.js'
import { alertStart } from './alerts/alerts.js'
import { backup } from './backup.js'
import { produceCopy } from './copy.js'
import { failRun, leaseAnswer, settleRun, type Running, type Stored } from './ending.js'
import type { Environment } from './environment.js'
import { folderOf, isCopy } from './folder.js'
import { runPostHook, runPreHook } from './hook.js'
import { keepLease } from './lease.js'
import { persist } from './persist.js'
import { planBackup, type BackupPlan } from './plan.js'
import { createTracker, type Tracker } from './progress.js'
import { openStorageRow, storageRow } from './sources.js'

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

export interface RunOptions {
  /** Told of the tracker before the work begins. */
  onTracker?: (tracker: Tracker) => void
  /** In place of what the execution's schedule says. */
  plan?: BackupPlan
}

/**
 * Takes a pending execution and carries it to its end: one backup or copy, recorded. Resolves to the completed row; rejects with the
 * reason after the row says `failed`, `cancelled` or `corrupted`, and nothing that looks like a backup is left of one that failed.
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
const produceBackup = async (running: Running, given: BackupPlan | undefined): Promise<Stored> => {
  const { env, execution, tracker, lease } = running
  let storage: Storage | undefined
  try {
    const plan = given ?? (await planOf(env, execution))
    for (const note of plan.notes) tracker.warn(note)
    const row = await storageRow(env, execution.storage_backend_id)
    storage = await openStorageRow(env, row, plan.parallelUploads)
    await transition(env.catalog.db, execution.id, {
      from: 'running', to: 'running', worker: env.workerId,
      set: { backup_config: configUsed(plan, row), storage_location: storage.location(folderOf(execution)) },
    })
    env.log.info({ source: plan.sourceName, storage: row.name }, 'backup started')
    if (given === undefined) await runPreHook(env, execution, lease.signal)
    const { backup_id: backupId, started_at: startedAt } = execution
    const result = await backup({
      backupId, startedAt, plan, storage, tracker, lease, stallTimeout: env.config.stallTimeout,
      auditHead: () => persist(() => auditHead(env.catalog.db), env.log),
    })
    return { storage, result, verify: plan.verify }
  } catch (error) {
    await failRun(running, storage, error)
    await storage?.close().catch((secondary: unknown) => env.log.warn({ error: messageOf(secondary) }, 'closing the storage failed'))
    throw error
  }
}

// For every line of the log; a catalog that is away is noticed by the work itself.
const scheduleName = async ({ catalog }: Environment, { schedule_id: id }: Execution): Promise<{ schedule?: string }> => {
  const schedule = id === null ? undefined : await scheduleById(catalog.db, id).catch(() => undefined)
  return schedule === undefined ? {} : { schedule: schedule.name }
}

/** Like `runExecution`, for an execution that this worker has claimed. */
export const runClaimed = async (outer: Environment, execution: Execution, { onTracker, plan: given }: RunOptions = {}): Promise<Execution> => {
  const log = outer.log.child({ execution: execution.id, backup_id: execution.backup_id, ...(await scheduleName(outer, execution)) })
  const env = { ...outer, log }
  const what = isCopy(execution) ? 'copy' : 'backup'
  const tracker = createTracker((warning) => log.warn(warning))
  onTracker?.(tracker)
  const lease = keepLease(() => leaseAnswer(env, execution.id, tracker.progress), env.signal, log)
  const running: Running = { env, execution, tracker, lease }
  try {
    await alertStart(env, env.catalog.db, execution)
    const stored = await (what === 'copy' ? produceCopy(running) : produceBackup(running, given))
    try {
      const row = await settleRun(running, stored)
      log.info({ bytes: row.size_bytes, stored: row.compressed_size_bytes, seconds: row.duration_seconds }, `${what} completed`)
      return row
    } finally {
      await stored.storage.close().catch((error: unknown) => log.warn({ error: messageOf(error) }, 'closing the storage failed'))
    }
  } catch (error) {
    log.error({ err: error }, `${what} failed`)
    throw error
  } finally {
    await lease.release()
    if (what === 'backup' && given === undefined) await runPostHook(env, execution.id)
  }
}
