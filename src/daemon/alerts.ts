import { deliverDue } from '../operation/alerts/deliver.js'
import type { Environment } from '../operation/environment.js'

/** What is left to send when the daemon stops gets so long; the rest waits in the catalog. Milliseconds. */
const LAST = 5_000

/** Sends alerts beside the daemon's other work, which never waits for it. */
export interface Alerts {
  /** There may be something to send. */
  wake(): void
  /** Sends what there is, within a few seconds, and ends. */
  stop(): Promise<void>
}

export const createAlerts = (outer: Environment): Alerts => {
  // The daemon's own signal asks it to drain, and what happens then is told too.
  const end = new AbortController()
  const env = { ...outer, signal: end.signal }
  let again = false
  let sending: Promise<void> | undefined

  const rounds = async (): Promise<void> => {
    do {
      again = false
      await deliverDue(env, end.signal)
    } while (again && !end.signal.aborted)
  }
  const wake = (): void => {
    if (end.signal.aborted) return
    again = true
    sending ??= rounds().finally(() => (sending = undefined))
  }

  return {
    wake,
    stop: async () => {
      wake()
      const timer = setTimeout(() => end.abort(), LAST)
      while (sending !== undefined) await sending
      clearTimeout(timer)
      end.abort()
    },
  }
}
