import type { Command } from 'commander'
import { pinExecution } from '../operation/pin.js'
import { needExecution } from '../operation/request.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'

/** `backupd pin EXECUTION`: retention keeps it, whatever its age. Exit 3 when there is none. */
export const define = (command: Command, run: Run): void => {
  command.argument('<execution>', 'number, backup_id or latest:SCHEDULE').action((reference: string) =>
    run(async (context) => {
      const env = await environmentOf(context)
      const row = await pinExecution(env, await needExecution(env, reference), true)
      context.out.result(row, () => `backup ${row.backup_id} is pinned: retention keeps it, whatever its age`)
    }))
}
