import { randomBytes } from 'node:crypto'
import { writeAudit } from '../audit/audit.js'
import { z } from 'zod'
import { enqueue, executionById, type Execution } from '../catalog/executions.js'
import { catalogReason } from '../catalog/failures.js'
import { jsonObject } from '../catalog/json.js'
import { notifyWork } from '../catalog/notifications.js'
import { claimRecovery, insertRecovery, renewRecoveryLease, transitionRecovery, updateRecoveryProgress, type Recovery } from '../catalog/recoveries.js'
import type { RecoveryStatus } from '../catalog/statuses.js'
import { BackupdError, messageOf } from '../errors.js'
import { describeConnection } from '../postgres/connection.js'
import { newBackupId } from '../repository/keys.js'
import { runExecution } from './execution.js'
import type { Environment } from './environment.js'
import { holdBackup } from './expiring.js'
import { errorDetails, errorMessage } from './failure.js'
import { auditKeyAccess } from './identities.js'
import { keepLease, type LeaseAnswer } from './lease.js'
import { persist } from './persist.js'
import { activeRecipients, type BackupPlan } from './plan.js'
import { createTracker, type Tracker } from './progress.js'
import { restore, type Validation } from './restore.js'
import { planRestore, type RestoreOptions, type RestorePlan } from './restore-plan.js'
import { connectionOf, openStorageRow, sealConnection, storageRow } from './sources.js'
import type { Log } from '../log.js'
import type { Storage } from '../storage/storage.js'

const newRecoveryId = (): string => `restore-${new Date().toISOString().replace(/[-:]|\.\d+/g, '')}-${randomBytes(4).toString('hex')}`

const typeOf = ({ tables, schemaOnly }: RestoreOptions, execution: Execution): string =>
  tables.length > 0 ? 'selective_restore' : schemaOnly || execution.backup_type === 'configuration' ? 'configuration_only' : execution.backup_type === 'full' ? 'full_restore' : 'database_only'

const componentsOf = ({ options, globals }: RestorePlan): string[] =>
  [...(options.globals && globals !== undefined ? ['globals'] : []), ...(options.tables.length > 0 ? options.tables : [options.schemaOnly ? 'schema' : 'database'])]

/** Puts a planned restore on record as `pending`: for a daemon that takes it from the queue, or for this worker. Fails with `backup.expiring`. */
export const recordRestore = async (env: Environment, plan: RestorePlan, taker: 'daemon' | 'here'): Promise<Recovery> => {
  const { execution, options, target, exists } = plan
  const sealed = await sealConnection(env, target)
  const recovery = {
    worker_id: taker === 'here' ? env.workerId : null,
    recovery_id: newRecoveryId(),
    backup_execution_id: execution.id,
    source_backup_id: execution.backup_id,
    recovery_type: typeOf(options, execution),
    restore_target: exists ? 'existing_database' : 'new_database',
    target_system: describeConnection(target).slice(0, 200),
    triggered_by: 'manual',
    restore_components: componentsOf(plan),
    recovery_config: {
      target: sealed, database: target.database, tables: options.tables, schema_only: options.schemaOnly, jobs: options.jobs,
      overwrite: options.overwrite, no_owner: options.noOwner, globals: options.globals,
    },
  }
  // From its record on, retention sees that the backup is read; what it has begun to delete before is not restored.
  const row = await env.catalog.db.transaction(async (tx) => {
    await holdBackup(tx, execution)
    return insertRecovery(tx, recovery)
  })
  if (taker === 'daemon') await notifyWork(env.catalog.db, { kind: 'recovery', id: row.id })
  return row
}

const recordedOptions = z.object({
  target: z.record(z.string(), z.unknown()),
  tables: z.array(z.string()), schema_only: z.boolean(), jobs: z.number(), overwrite: z.boolean(), no_owner: z.boolean(), globals: z.boolean(),
})

/** What a recorded restore asks for, with the target's password opened. Fails with `secret.*` where it was sealed under another key. */
export const recordedRequest = async (env: Environment, recovery: Recovery): Promise<RestoreOptions> => {
  const config = recordedOptions.parse(jsonObject(recovery.recovery_config))
  return {
    target: { to: await connectionOf(env, { name: `target of ${recovery.recovery_id}`, connection: config.target }) },
    overwrite: config.overwrite, tables: config.tables, schemaOnly: config.schema_only, jobs: config.jobs, noOwner: config.no_owner, globals: config.globals,
  }
}

const leaseAnswer = async (env: Environment, id: number, progress: unknown): Promise<LeaseAnswer> => {
  const { held, cancelRequested } = await renewRecoveryLease(env.catalog.db, id, env.workerId)
  if (!held) return 'lost'
  await updateRecoveryProgress(env.catalog.db, id, env.workerId, progress)
  return cancelRequested ? 'cancel' : 'held'
}

/** Backs up the database that is about to be replaced, into the same storage, and gives the backup's id. */
const backUpTarget = async (env: Environment, { execution, target, manifest }: RestorePlan): Promise<string> => {
  const plan: BackupPlan = {
    scheduleName: `before restore of ${target.database}`,
    sourceName: `restore target ${target.database}`,
    connection: target,
    pgBin: env.config.pgBin,
    backupType: 'full',
    compression: manifest.compression,
    compressionLevel: manifest.compression_level ?? undefined,
    recipients: manifest.recipients.length > 0 ? await activeRecipients(env) : [],
    include: [], exclude: [],
    bandwidthMbps: undefined,
    parallelUploads: 3,
    verify: true,
    notes: [],
  }
  const queued = await enqueue(env.catalog.db, {
    backup_id: newBackupId(new Date(), `before-restore-${target.database}`),
    storage_backend_id: execution.storage_backend_id,
    backup_type: 'full',
    triggered_by: 'disaster_recovery',
    // Without an attempt it is no part of the queue: this worker runs it, and no other may take it.
    attempt: null,
  })
  if (queued === undefined) throw new BackupdError('restore.safety_backup', 'the backup of the database to be replaced could not be queued')
  try {
    return (await runExecution(env, queued.id, { plan })).backup_id
  } catch (error) {
    throw new BackupdError('restore.safety_backup', `the database to be replaced could not be backed up, so nothing was restored: ${messageOf(error)}`, {
      cause: error, details: { execution_id: queued.id },
      hint: 'Nothing was changed. Restore into a new database, or make the backup possible.',
    })
  }
}

interface Outcome {
  recovery: Recovery
  validation: Validation
}

/** One recovery on its way through its statuses, each written under the lease. */
const journal = (env: Environment, recovery: Recovery, tracker: Tracker) => {
  let status: RecoveryStatus = 'preparing'
  const move = async (to: RecoveryStatus, set: Parameters<typeof transitionRecovery>[2]['set'] = {}): Promise<Recovery> => {
    const row = await persist(() => env.catalog.db.transaction(async (tx) => {
      const moved = await transitionRecovery(tx, recovery.id, {
        from: status, to, worker: env.workerId, set: { ...set, warnings: [...tracker.warnings], progress: { ...tracker.progress } },
      })
      if (moved !== undefined) await notifyWork(tx, { kind: 'recovery', id: recovery.id })
      return moved
    }), env.log)
    if (row === undefined) throw new BackupdError('lease.lost', 'another worker has ended this restore')
    status = to
    return row
  }
  return { move, status: () => status }
}

const audit = (env: Environment, recovery: Recovery, status: 'success' | 'failure', data: Record<string, unknown>): Promise<unknown> =>
  writeAudit(env.catalog.db, {
    event_type: status === 'success' ? 'restore.completed' : 'restore.failed', event_category: 'recovery', action: 'execute', status, actor: env.actor,
    resource: { type: 'recovery_execution', id: recovery.id, name: recovery.recovery_id },
    event_data: { backup_id: recovery.source_backup_id, target: recovery.target_system, ...data },
    risk_level: recovery.restore_target === 'existing_database' ? 'high' : 'medium',
    correlation_id: recovery.source_backup_id,
  })

interface Failing extends ReturnType<typeof journal> {
  env: Environment
  log: Log
  recovery: Recovery
  tracker: Tracker
}

/** Says in the row and the audit trail why a restore ended; what prevents that is logged, and the first reason stays the one to tell. */
const recordFailure = async ({ env, log, recovery, tracker, move, status }: Failing, error: unknown): Promise<void> => {
  const cancelled = error instanceof BackupdError && error.code === 'cancelled'
  const details = errorDetails(error, tracker.progress.stage)
  const differs = error instanceof BackupdError && error.code === 'restore.validation'
  try {
    const row = await move(cancelled ? 'cancelled' : 'failed', {
      error_message: errorMessage(error), error_details: details,
      ...(differs ? { validation_performed: true, validation_passed: false, validation_results: { passed: false, differences: details['differences'] } } : {}),
    })
    await audit(env, row, 'failure', { code: details['code'], stage: details['stage'] })
  } catch (secondary) {
    log.error({ recovery: recovery.id, status: status(), error: catalogReason(secondary) }, 'the failure could not be recorded')
  }
}

const stages = { downloading: 'download', restoring: 'restore', validating: 'validate' } as const

/** Takes a recorded restore and carries it to its end. Rejects with the reason after the row says `failed` or `cancelled`. */
export const runRecovery = async (env: Environment, id: number, plan: RestorePlan, onTracker?: (tracker: Tracker) => void): Promise<Outcome> => {
  const recovery = await claimRecovery(env.catalog.db, id, env.workerId)
  if (recovery === undefined) throw new BackupdError('recovery.taken', `recovery ${id} is not waiting any more`)
  return carryRecovery(env, recovery, () => Promise.resolve(plan), onTracker)
}

/** Carries out a restore that this worker has claimed from the queue: plans it from its record first. */
export const runQueuedRecovery = async (env: Environment, recovery: Recovery, onTracker?: (tracker: Tracker) => void): Promise<Outcome> => {
  let storage: Storage | undefined
  const planned = async (within: Environment): Promise<RestorePlan> => {
    const execution = recovery.backup_execution_id === null ? undefined : await executionById(env.catalog.db, recovery.backup_execution_id)
    if (execution === undefined) throw new BackupdError('execution.not_found', `the record of backup ${recovery.source_backup_id} is gone`, { kind: 'notFound' })
    storage = await openStorageRow(within, await storageRow(within, execution.storage_backend_id))
    return planRestore(within, execution, storage, await recordedRequest(within, recovery))
  }
  try {
    return await carryRecovery(env, recovery, planned, onTracker)
  } finally {
    await storage?.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
  }
}

/** Row, statuses, validation and audit around one restore. */
const carryRecovery = async (env: Environment, recovery: Recovery, planned: (within: Environment) => Promise<RestorePlan>, onTracker: (tracker: Tracker) => void = () => undefined): Promise<Outcome> => {
  const log = env.log.child({ recovery: recovery.id, backup_id: recovery.source_backup_id })
  const tracker = createTracker((warning) => log.warn(warning))
  onTracker(tracker)
  const lease = keepLease(() => leaseAnswer(env, recovery.id, tracker.progress), env.signal, log)
  const { move, status } = journal(env, recovery, tracker)
  const within: Environment = { ...env, log, signal: lease.signal }
  try {
    const plan = await planned(within)
    for (const warning of plan.warnings) tracker.warn(warning)
    if (plan.manifest.recipients.length > 0) await auditKeyAccess(within, { identities: plan.identities, purpose: 'restore', backupId: recovery.source_backup_id })
    const safety = plan.exists ? await backUpTarget(within, plan) : undefined
    const validation = await restore({
      plan, tracker, log, signal: lease.signal, stallTimeout: env.config.stallTimeout,
      enter: async (to) => {
        tracker.enter(stages[to])
        await move(to, safety === undefined ? {} : { pre_recovery_backup_id: safety })
      },
    })
    const row = await move('completed', {
      restored_components: componentsOf(plan), validation_performed: true, validation_passed: validation.passed, validation_results: validation,
    })
    await audit(env, row, 'success', { tables: validation.tables, rows: validation.rows })
    log.info({ target: recovery.target_system, tables: validation.tables, rows: validation.rows }, 'restore completed')
    return { recovery: row, validation }
  } catch (error) {
    await recordFailure({ env, log, recovery, tracker, move, status }, error)
    log.error({ err: error }, 'restore failed')
    throw error
  } finally {
    await lease.release()
  }
}
