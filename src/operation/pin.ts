import { writeAudit } from '../audit/audit.js'
import type { Execution } from '../catalog/executions.js'
import { setPinned } from '../catalog/expiry.js'
import { BackupdError } from '../errors.js'
import type { Environment } from './environment.js'
import { refuseExpiring } from './expiring.js'

/** Has retention keep a backup whatever its age, or lets it go its way again, on record. Fails with `backup.expiring` when its deletion has begun. */
export const pinExecution = (env: Environment, execution: Execution, pinned: boolean): Promise<Execution> =>
  env.catalog.db.transaction(async (tx) => {
    refuseExpiring(execution)
    if (execution.pinned === pinned) return execution
    const row = await setPinned(tx, execution.id, pinned)
    if (row === undefined) throw new BackupdError('backup.expiring', `execution ${execution.id} was deleted, or is being deleted`, { kind: 'notFound', hint: 'See "backupd list".' })
    await writeAudit(tx, {
      event_type: pinned ? 'backup.pinned' : 'backup.unpinned', event_category: 'backup', action: 'update', actor: env.actor,
      resource: { type: 'backup_execution', id: row.id, name: row.backup_id }, before: { pinned: !pinned }, after: { pinned }, correlation_id: row.backup_id,
      ...(pinned ? {} : { risk_level: 'medium' as const }),
    })
    return row
  })
