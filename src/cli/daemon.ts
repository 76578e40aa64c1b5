import type { Command } from 'commander'
import { catalogReason, isUnreachable } from '../catalog/failures.js'
import { createLog } from '../log.js'
import type { Run } from './context.js'

/** `backupd daemon`: keeps the schedules until SIGTERM or SIGINT. Exit 4 when its configuration or the catalog's schema is not for it. */
export const define = (command: Command, run: Run): void => {
  command.action(() =>
    run(async ({ config, out, signal, urgent }) => {
      const { runDaemon } = await import('../daemon/daemon.js')
      const log = createLog({ level: config.logLevel ?? 'info', stream: process.stdout, human: process.stdout.isTTY && !out.json })
      // What the driver does by itself, such as connecting again, may fail where nobody waits for it. That is no reason to end.
      process.on('unhandledRejection', (error) => {
        if (!isUnreachable(error)) throw error
        log.debug({ error: catalogReason(error) }, 'a connection was lost')
      })
      await runDaemon({ config, log, signal, urgent })
    }))
}
