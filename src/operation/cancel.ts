import { writeAudit } from '../audit/audit.js'
import { requestCancel, type Execution } from '../catalog/executions.js'
import { notifyWork } from '../catalog/notifications.js'
import { BackupdError } from '../errors.js'
import type { Environment } from './environment.js'

/** Asks for an execution to be cancelled, on record. Fails with `execution.ended` (exit code 1) when there is nothing left to cancel. */
export const askToCancel = async (env: Environment, execution: Execution): Promise<Execution> => {
  const row = await env.catalog.db.transaction(async (tx) => {
    const asked = await requestCancel(tx, execution.id)
    if (asked === undefined) return undefined
    await notifyWork(tx, { kind: 'cancel', id: asked.id })
    if (asked.status === 'cancelled') await notifyWork(tx, { kind: 'execution', id: asked.id })
    await writeAudit(tx, {
      event_type: 'backup.cancel_requested', event_category: 'backup', action: 'update', actor: env.actor,
      resource: { type: 'backup_execution', id: asked.id, name: asked.backup_id }, correlation_id: asked.backup_id,
    })
    return asked
  })
  if (row !== undefined) return row
  throw new BackupdError('execution.ended', `execution ${execution.id} has ended already: ${execution.status}`, { details: { execution_id: execution.id, status: execution.status } })
}
