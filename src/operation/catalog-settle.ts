import { sql } from 'drizzle-orm'
import { writeAudit } from '../audit/audit.js'
import type { Environment } from './environment.js'

const why = 'it was under way when the backup was made from which this catalog was restored'

/** What was going on when the catalog was backed up, and how it was ended. */
export interface Settled {
  /** Runs that are on record no more: whether they ended with a backup, the storage knows. */
  removed: string[]
  cancelled: number
  verifying: number
  restores: number
}

/**
 * Ends what was live in a restored catalog, before any daemon sees it. One that found these runs without a worker would take them for
 * lost, and remove what they have stored: the backup of the catalog itself is among them.
 */
export const settleRestored = (env: Environment, from: { backupId: string; storage: string }): Promise<Settled> =>
  env.catalog.db.transaction(async (tx) => {
    const removed = await tx.execute<{ backup_id: string }>(sql`DELETE FROM backup_executions WHERE status = 'running' RETURNING backup_id`)
    const cancelled = await tx.execute(sql`UPDATE backup_executions SET status = 'cancelled', completed_at = now(), error_message = ${why} WHERE status = 'pending' RETURNING id`)
    const verifying = await tx.execute(sql`UPDATE backup_executions SET status = 'completed', verification_status = 'pending', completed_at = coalesce(completed_at, now()),
      worker_id = NULL, lease_expires_at = NULL WHERE status = 'verifying' RETURNING id`)
    const restores = await tx.execute(sql`UPDATE recovery_executions SET status = 'failed', completed_at = now(), worker_id = NULL, lease_expires_at = NULL, error_message = ${why}
      WHERE status NOT IN ('completed', 'failed', 'cancelled', 'rollback') RETURNING id`)
    await tx.execute(sql`DELETE FROM backup_workers`)
    const settled = { removed: removed.map(({ backup_id: id }) => id), cancelled: cancelled.length, verifying: verifying.length, restores: restores.length }
    await writeAudit(tx, {
      event_type: 'catalog.restored', event_category: 'recovery', action: 'create', actor: env.actor, risk_level: 'high',
      resource: { type: 'backup_execution', name: from.backupId }, event_data: { ...from, ...settled },
    })
    return settled
  })
