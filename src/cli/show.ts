import type { Command } from 'commander'
import { needExecution } from '../operation/request.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'
import { executionText } from './execution.js'

/** `backupd show EXECUTION`: everything that is known of one run. Exit 3 when there is none. */
export const define = (command: Command, run: Run): void => {
  command.argument('<execution>', 'number, backup_id or latest:SCHEDULE').action((reference: string) =>
    run(async (context) => {
      const execution = await needExecution(await environmentOf(context), reference, { anyStatus: true })
      context.out.result(execution, () => executionText(execution))
    }))
}
