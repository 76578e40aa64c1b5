import { and, eq, inArray, isNotNull, notInArray, sql } from './drizzle.js'
import type { Db } from './connect.js'
import { backupExecutions, backupNotifications, backupWorkers, recoveryExecutions } from './schema.js'
import { endedRecoveryStatuses } from './statuses.js'

/** What was under way when the catalog was dumped, and what became of it. */
export interface Settled {
  /** backup_ids of runs whose record was removed: their objects stay, and a rebuild finds those that came to their end. */
  forgotten: string[]
  cancelled: number
  recoveries: number
}

const over = { worker_id: null, lease_expires_at: null }

/**
 * Ends what a restored catalog believes to be under way. It was, when the catalog was dumped; taken for lost work, its objects would be
 * removed, good backups that were finished since among them.
 */
export const settleRestored = async (db: Db): Promise<Settled> => {
  await db.delete(backupWorkers)
  await db.delete(backupNotifications).where(eq(backupNotifications.status, 'pending'))
  await db.update(backupExecutions).set({ ...over, status: 'completed', verification_status: 'pending' })
    .where(and(eq(backupExecutions.status, 'verifying'), isNotNull(backupExecutions.attempt)))
  const cancelled = await db.update(backupExecutions)
    .set({ ...over, status: 'cancelled', completed_at: sql`now()`, error_message: 'it was waiting when the catalog was backed up that was restored' })
    .where(and(eq(backupExecutions.status, 'pending'), isNotNull(backupExecutions.attempt))).returning({ id: backupExecutions.id })
  const running = await db.select({ id: backupExecutions.id }).from(backupExecutions).where(eq(backupExecutions.status, 'running'))
  const ids = running.map(({ id }) => id)
  if (ids.length > 0) await db.update(recoveryExecutions).set({ backup_execution_id: null }).where(inArray(recoveryExecutions.backup_execution_id, ids))
  const forgotten = ids.length === 0 ? [] : await db.delete(backupExecutions).where(inArray(backupExecutions.id, ids)).returning({ backup_id: backupExecutions.backup_id })
  const recoveries = await db.update(recoveryExecutions)
    .set({ ...over, status: 'failed', completed_at: sql`now()`, error_message: 'it was under way when the catalog was backed up that was restored' })
    .where(notInArray(recoveryExecutions.status, [...endedRecoveryStatuses])).returning({ id: recoveryExecutions.id })
  return { forgotten: forgotten.map(({ backup_id }) => backup_id), cancelled: cancelled.length, recoveries: recoveries.length }
}

/** What of the catalog somebody has put there: by kind, how many. Backups that were found in a storage are found again, and do not count. */
export const contentOf = async (db: Db): Promise<{ what: string; count: number }[]> => {
  const rows = await db.execute<{ what: string; count: number }>(sql`
    SELECT what, count::int AS count FROM (
      SELECT 'sources' AS what, count(*) FROM backup_sources
      UNION ALL SELECT 'schedules', count(*) FROM backup_schedules WHERE managed_by IS NULL
      UNION ALL SELECT 'policies', count(*) FROM backup_retention_policies
      UNION ALL SELECT 'notifiers', count(*) FROM backup_notifiers
      UNION ALL SELECT 'executions', count(*) FROM backup_executions WHERE execution_metadata ->> 'rebuilt_at' IS NULL
      UNION ALL SELECT 'recoveries', count(*) FROM recovery_executions
    ) AS content WHERE count > 0`)
  return [...rows]
}
