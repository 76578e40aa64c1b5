import type { Command } from 'commander'
import { createLog } from '../log.js'
import type { Run } from './context.js'

/** What still runs this long after everything was put away hangs. Milliseconds. */
const HANGING = 10_000

/** `backupd daemon`: keeps the schedules until SIGTERM or SIGINT. Exit 4 when its configuration or the catalog's schema is not for it. */
export const define = (command: Command, run: Run): void => {
  command.action(() =>
    run(async ({ config, out, signal, urgent }) => {
      const { runDaemon } = await import('../daemon/daemon.js')
      const log = createLog({ level: config.logLevel ?? 'info', stream: process.stdout, human: process.stdout.isTTY && !out.json })
      await runDaemon({ config, log, signal, urgent })
      // Work that could not be ended is protected by its lease alone; the process must not outlive its service.
      setTimeout(() => process.kill(process.pid, 'SIGKILL'), HANGING).unref()
    }))
}
