import { Option, type Command } from 'commander'
import { needBackup, needExecution } from '../operation/request.js'
import { createTracker } from '../operation/progress.js'
import { verifyExecution } from '../operation/reverify.js'
import { verifyLevels, type VerifyLevel } from '../operation/verify.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'
import { flushAlerts } from './flush-alerts.js'
import { bytes } from './output.js'
import { showProgress } from './progress.js'

/** `backupd verify EXECUTION`: reads a backup back. Exit 5 when it is damaged, 3 when there is none, 4 when the key for the level is not at hand. */
export const define = (command: Command, run: Run): void => {
  command
    .argument('<execution>', 'number, backup_id or latest:SCHEDULE')
    .addOption(new Option('--level <level>', 'checksum: compare digests; archive: also decrypt, decompress and list (default: the deepest the keys at hand allow)').choices(verifyLevels))
    .action((reference: string, options: { level?: VerifyLevel }) =>
      run(async (context) => {
        const env = await environmentOf(context)
        const execution = needBackup(await needExecution(env, reference))
        const tracker = createTracker()
        const stop = showProgress(context.out, () => tracker.progress, undefined)
        const { row, verification } = await verifyExecution(env, execution, tracker, options.level).finally(async () => {
          stop()
          await flushAlerts(context, env)
        })
        context.out.result(
          { execution_id: row.id, backup_id: row.backup_id, status: row.status, verification_status: row.verification_status, verified_at: row.verified_at, ...verification },
          () => `backup ${row.backup_id} is whole: ${verification.parts} parts, ${bytes(verification.bytes)} read back, level ${verification.level}`,
        )
      }))
}
