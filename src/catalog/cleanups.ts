import { desc, eq, sql } from './drizzle.js'
import type { Db } from './connect.js'
import { clock } from './leases.js'
import { jsonText } from './schema/columns.js'
import { backupCleanupHistory, backupRetentionPolicies } from './schema.js'
import type { CleanupStatus } from './statuses.js'

export type Cleanup = typeof backupCleanupHistory.$inferSelect

interface Begun {
  cleanup_id: string
  retention_policy_id: number
  storage_backend_id: number
  triggered_by: string
  backups_evaluated: number
}

/** Puts a cleanup on record before it deletes anything: as failed, which is true until it has ended. */
export const beginCleanup = async (db: Db, begun: Begun): Promise<Cleanup> => {
  const [row] = await db.insert(backupCleanupHistory)
    .values({ ...begun, started_at: clock as unknown as Date, status: 'failed', backups_kept: begun.backups_evaluated, error_message: 'it did not come to its end' }).returning()
  if (row === undefined) throw new Error('the cleanup was not stored')
  return row
}

/** Counts one deletion, in the transaction that removes the record. */
export const countDeletion = async (tx: Db, id: number, deleted: { backup_id: string; freed: number }): Promise<void> => {
  await tx.update(backupCleanupHistory).set({
    backups_deleted: sql`backups_deleted + 1`,
    backups_kept: sql`backups_kept - 1`,
    space_freed_bytes: sql`space_freed_bytes + ${deleted.freed}`,
    deleted_backup_ids: sql`(CASE WHEN jsonb_typeof(deleted_backup_ids::jsonb) = 'array' THEN deleted_backup_ids::jsonb ELSE '[]' END) || ${jsonText([deleted.backup_id])}::text::jsonb`,
    updated_at: clock,
  }).where(eq(backupCleanupHistory.id, id))
}

interface Ended {
  status: CleanupStatus
  error: string | null
  warnings: string[]
}

/** Ends a cleanup, and adds it to the totals of its policy. */
export const endCleanup = (db: Db, id: number, { status, error, warnings }: Ended): Promise<Cleanup> =>
  db.transaction(async (tx) => {
    const [row] = await tx.update(backupCleanupHistory).set({
      status, error_message: error, warnings: warnings.length === 0 ? null : warnings, completed_at: clock, updated_at: clock,
      duration_seconds: sql`greatest(0, round(extract(epoch FROM clock_timestamp() - started_at)))::integer`,
    }).where(eq(backupCleanupHistory.id, id)).returning()
    if (row === undefined) throw new Error('the cleanup is not on record any more')
    await tx.update(backupRetentionPolicies).set({
      last_cleanup_at: clock,
      total_cleanups: sql`total_cleanups + 1`,
      total_backups_deleted: sql`total_backups_deleted + ${row.backups_deleted}`,
      total_space_freed_bytes: sql`total_space_freed_bytes + ${row.space_freed_bytes}`,
    }).where(eq(backupRetentionPolicies.id, row.retention_policy_id))
    return row
  })

/** Cleanups, newest first. */
export const listCleanups = (db: Db, limit = 50): Promise<Cleanup[]> =>
  db.select().from(backupCleanupHistory).orderBy(desc(backupCleanupHistory.id)).limit(limit)
