import type { Command } from 'commander'
import { pinExecution } from '../operation/pin.js'
import { needExecution } from '../operation/request.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'

/** `backupd unpin EXECUTION`: retention decides about it again. Exit 3 when there is none. */
export const define = (command: Command, run: Run): void => {
  command.argument('<execution>', 'number, backup_id or latest:SCHEDULE').action((reference: string) =>
    run(async (context) => {
      const env = await environmentOf(context)
      const row = await pinExecution(env, await needExecution(env, reference), false)
      context.out.result(row, () => `backup ${row.backup_id} is unpinned: retention decides about it again`)
    }))
}
