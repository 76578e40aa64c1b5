import { schedule, type ScheduledTask } from 'node-cron'
import { catalogReason } from '../catalog/failures.js'
import type { Log } from '../log.js'

/** How often the clock on the wall is compared with the one that cannot be set. Milliseconds. */
const GUARD = 5_000
const JUMP = 2_000

/** Periodic work of this process, driven by node-cron. */
export interface Periodic {
  /** Does `work` every `seconds` (a divisor of 60, or whole minutes), from some moment on; work that still runs is not started again. A failure is logged. */
  every(seconds: number, name: string, work: () => Promise<void> | void): void
  stop(): void
}

const chance = (below: number): number => Math.floor(Math.random() * below)

// Daemons that were started together, or whose clocks are right, must not all come at the same second.
const pattern = (seconds: number): string => {
  if (seconds < 60) return `${chance(seconds)}-59/${seconds} * * * * *`
  const minutes = Math.round(seconds / 60)
  return `${chance(60)} ${chance(minutes)}-59/${minutes} * * * *`
}

export const createPeriodic = (log: Log): Periodic => {
  const tasks: ScheduledTask[] = []
  const quiet = { info: () => undefined, warn: (text: string) => log.debug(text), error: (text: string | Error) => log.error(String(text)), debug: () => undefined }

  // node-cron waits for a time on the wall. When that clock is put back by an hour, it would wait for an hour: it has to ask again.
  let offset = Date.now() - performance.now()
  const guard = setInterval(() => {
    const found = Date.now() - performance.now()
    if (Math.abs(found - offset) > JUMP) {
      log.warn({ milliseconds: Math.round(found - offset) }, 'the clock of this machine was set')
      for (const task of tasks) {
        void task.stop()
        void task.start()
      }
    }
    offset = found
  }, GUARD)

  return {
    every: (seconds, name, work) => {
      let busy = false
      const once = async (): Promise<void> => {
        if (busy) return
        busy = true
        try {
          await work()
        } catch (error) {
          log.error({ task: name, error: catalogReason(error) }, 'periodic work failed')
        } finally {
          busy = false
        }
      }
      // A machine that is short of time skips a beat; that is no news.
      tasks.push(schedule(pattern(seconds), () => void once(), { name, logger: quiet, suppressMissedWarning: true, timezone: 'UTC' }))
    },
    stop: () => {
      clearInterval(guard)
      for (const task of tasks) void task.destroy()
    },
  }
}
