import { writeAudit } from '../audit/audit.js'
import type { Db } from '../catalog/connect.js'
import { updateExecution, type Execution, type NewExecution } from '../catalog/executions.js'
import { notifyWork } from '../catalog/notifications.js'
import type { ExecutionStatus } from '../catalog/statuses.js'
import { refreshStorageTotals } from '../catalog/storages.js'
import { BackupdError, messageOf } from '../errors.js'
import { alertVerified } from './alerts/alerts.js'
import type { Environment } from './environment.js'
import { holdBackup } from './expiring.js'
import { openStorageRow, storageRow } from './sources.js'
import type { Tracker } from './progress.js'
import { checkBackup, type VerificationOutcome } from './verification.js'
import type { Verification, VerifyLevel } from './verify.js'

/** Writes the result of a verification into the row and the audit trail. Undefined, and nothing is written, when `allowed` says no in the same transaction. */
export const recordVerification = (
  env: Environment, execution: Execution, outcome: VerificationOutcome, allowed: (tx: Db) => Promise<boolean> = () => Promise.resolve(true),
): Promise<Execution | undefined> =>
  env.catalog.db.transaction(async (tx) => {
    if (!(await allowed(tx))) return undefined
    // What is missing of a backup that is being deleted meanwhile is no damage.
    await holdBackup(tx, execution)
    // A backup that is found whole again (its storage was repaired) loses the error that a verification gave it, and no other.
    const healed: Partial<NewExecution> = execution.status === 'corrupted' && outcome.error === undefined ? { error_message: null, error_details: null } : {}
    const row = await updateExecution(tx, execution.id, { ...healed, ...outcome.set, ...(execution.status === 'verifying' ? {} : { status: outcome.status }) })
    if (row === undefined) throw new BackupdError('execution.not_found', `execution ${execution.id} was removed meanwhile`, { kind: 'notFound' })
    await refreshStorageTotals(tx, row.storage_backend_id)
    await notifyWork(tx, { kind: 'execution', id: row.id })
    await alertVerified(env, tx, execution.status as ExecutionStatus, row)
    await writeAudit(tx, {
      event_type: 'backup.verified', event_category: 'backup', action: 'execute', status: outcome.error === undefined ? 'success' : 'failure',
      actor: env.actor, resource: { type: 'backup_execution', id: row.id, name: row.backup_id },
      event_data: outcome.event, correlation_id: row.backup_id, ...(outcome.error === undefined ? {} : { risk_level: 'critical' as const }),
    })
    return row
  })

/** Verifies a stored backup and records the result. Fails with `integrity.corrupted` (exit code 5) after recording the damage, or with `backup.expiring`. */
export const verifyExecution = async (env: Environment, execution: Execution, tracker: Tracker, level?: VerifyLevel): Promise<{ row: Execution; verification: Verification }> => {
  const storage = await openStorageRow(env, await storageRow(env, execution.storage_backend_id))
  try {
    const outcome = await checkBackup(env, { execution, storage, tracker, signal: env.signal, ...(level === undefined ? {} : { level }) })
    const row = await recordVerification(env, execution, outcome)
    if (outcome.error !== undefined) throw outcome.error
    if (row === undefined || outcome.verification === undefined) throw new BackupdError('internal', 'the verification has no result')
    return { row, verification: outcome.verification }
  } finally {
    await storage.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
  }
}
