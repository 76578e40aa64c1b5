import type { Command } from 'commander'
import { askToCancel } from '../operation/cancel.js'
import { needExecution } from '../operation/request.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'

/** `backupd cancel EXECUTION`. Exit 3 when there is none, 1 when it has ended already. */
export const define = (command: Command, run: Run): void => {
  command.argument('<execution>', 'number, backup_id or latest:SCHEDULE').action((reference: string) =>
    run(async (context) => {
      const env = await environmentOf(context)
      const row = await askToCancel(env, await needExecution(env, reference, { anyStatus: true }))
      context.out.result(row, () => (row.status === 'cancelled' ? `execution ${row.id} is cancelled, it had not begun` : `execution ${row.id} is being cancelled`))
    }))
}
