import { writeAudit } from '../audit/audit.js'
import type { Db } from '../catalog/connect.js'
import { executionsOfFolder, lockExecution } from '../catalog/copies.js'
import { enqueue, type Execution } from '../catalog/executions.js'
import { jsonObject } from '../catalog/json.js'
import { notifyWork } from '../catalog/notifications.js'
import { scheduleById } from '../catalog/schedules.js'
import { goodExecutionStatuses, liveExecutionStatuses, type Trigger } from '../catalog/statuses.js'
import { storageById, type StorageRow } from '../catalog/storages.js'
import { addWarning } from '../catalog/warnings.js'
import { BackupdError } from '../errors.js'
import { randomSuffix } from '../repository/keys.js'
import type { Environment } from './environment.js'
import { refuseExpiring } from './expiring.js'
import { folderOf, isCopy } from './folder.js'
import { shellWord } from '../shell.js'

interface NewCopy {
  original: Execution
  target: StorageRow
  trigger: string
  /** Read back what was written, and compare the digests. */
  verify: boolean
}

/** A new backup_id for a copy. The column holds 100 characters; what stands before the suffix is for people, the folder's name is in the metadata. */
export const newCopyId = (folder: string): string => `${folder.slice(0, 88)}-copy-${randomSuffix()}`

const insertCopy = async (env: Environment, tx: Db, { original, target, trigger, verify }: NewCopy): Promise<Execution> => {
  const folder = folderOf(original)
  const row = await enqueue(tx, {
    backup_id: newCopyId(folder),
    copy_of: original.id,
    schedule_id: original.schedule_id,
    storage_backend_id: target.id,
    source_id: original.source_id,
    backup_type: original.backup_type,
    triggered_by: trigger,
    trigger_user_id: original.trigger_user_id,
    scheduled_for: original.scheduled_for,
    backup_config: { ...jsonObject(original.backup_config), storage: target.name, storage_type: target.backend_type, verify_integrity: verify, copy_of: original.backup_id },
    execution_metadata: { stored_as: folder },
  })
  if (row === undefined) throw new BackupdError('copy.not_queued', `the copy of ${original.backup_id} could not be queued`, { retryable: true })
  await notifyWork(tx, { kind: 'execution', id: row.id })
  await writeAudit(tx, {
    event_type: 'copy.requested', event_category: 'backup', action: 'create', actor: env.actor,
    resource: { type: 'backup_execution', id: row.id, name: row.backup_id },
    event_data: { copy_of: original.id, storage: target.name, triggered_by: trigger }, correlation_id: original.backup_id,
  })
  return row
}

/** What a good backup of a schedule with `copy_to` is followed by: queued in the transaction that ends it. */
export const queueCopy = async (env: Environment, tx: Db, ended: Execution): Promise<void> => {
  if (ended.status !== 'completed' || ended.schedule_id === null || isCopy(ended)) return
  const schedule = await scheduleById(tx, ended.schedule_id)
  if (schedule === undefined || schedule.copy_to === null || schedule.copy_to === ended.storage_backend_id) return
  const target = await storageById(tx, schedule.copy_to)
  if (target === undefined) return
  await insertCopy(env, tx, { original: ended, target, trigger: ended.triggered_by, verify: schedule.verify_integrity })
}

/** A copy that failed is a warning of its original, and never more. */
export const noteCopyFailure = async (tx: Db, ended: Execution): Promise<void> => {
  if (ended.copy_of === null || !['failed', 'corrupted', 'cancelled'].includes(ended.status)) return
  const storage = (await storageById(tx, ended.storage_backend_id))?.name ?? ended.storage_backend_id
  const reason = ended.error_message?.split('\n')[0] ?? ended.status
  await addWarning(tx, ended.copy_of, `the copy to storage ${storage} (execution ${ended.id}) ended as ${ended.status}: ${reason}`)
}

const refuse = (code: string, message: string, hint: string, id?: number): BackupdError =>
  new BackupdError(code, message, { hint, ...(id === undefined ? {} : { details: { execution_id: id } }) })

/**
 * Puts a copy of a good backup to `target` into the queue; one that waits there already is given instead. Fails with `copy.same_storage`,
 * `copy.not_good`, `copy.exists`, `copy.busy`, `backup.expiring` or `storage.disabled`.
 */
export const requestCopy = async (env: Environment, asked: Execution, target: StorageRow, { verify, trigger }: { verify: boolean; trigger: Trigger }): Promise<Execution> => {
  if (target.id === asked.storage_backend_id) {
    throw new BackupdError('copy.same_storage', `backup ${asked.backup_id} is in storage ${target.name} already`, { kind: 'usage', hint: 'Name another storage in --to.' })
  }
  if (!target.is_active) {
    throw new BackupdError('storage.disabled', `storage "${target.name}" is disabled`, { kind: 'configuration', hint: `Enable it with "backupd storage enable ${shellWord(target.name)}".` })
  }
  return env.catalog.db.transaction(async (tx) => {
    const original = await lockExecution(tx, asked.id)
    if (original === undefined) throw new BackupdError('execution.not_found', `execution ${asked.id} was removed`, { kind: 'notFound' })
    refuseExpiring(original)
    if (!(goodExecutionStatuses as readonly string[]).includes(original.status)) {
      throw refuse('copy.not_good', `execution ${original.id} is ${original.status}, and only a good backup is copied`, original.error_message ?? 'See "backupd show".', original.id)
    }
    const [there] = await executionsOfFolder(tx, target.id, folderOf(original), [...goodExecutionStatuses, ...liveExecutionStatuses])
    if (there === undefined) return insertCopy(env, tx, { original, target, trigger, verify })
    if (there.expiring_at !== null) throw refuse('copy.busy', `retention is deleting the copy in ${target.name}: execution ${there.id}`, 'Try again when it is gone.', there.id)
    if (there.status === 'pending') return there
    if (there.status === 'running') throw refuse('copy.busy', `execution ${there.id} is copying it to ${target.name} already`, `Follow it with "backupd show ${there.id}".`, there.id)
    throw refuse('copy.exists', `storage ${target.name} has this backup already: execution ${there.id}`, `See "backupd show ${there.id}"; "backupd verify ${there.id}" checks it.`, there.id)
  })
}
