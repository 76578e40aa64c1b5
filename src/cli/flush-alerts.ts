import { catalogReason } from '../catalog/failures.js'
import { deliverDue } from '../operation/alerts/deliver.js'
import type { Environment } from '../operation/environment.js'
import type { Context } from './context.js'
import { daemonAlive } from './follow.js'

/** How long a command stays for its alerts. Milliseconds. */
const LIMIT = 10_000

/** Sends what waits, where no daemon does. What a receiver does not take in time waits for the next daemon or command; the command's result is the same. */
export const flushAlerts = async ({ urgent, log }: Pick<Context, 'urgent' | 'log'>, env: Environment): Promise<void> => {
  try {
    if (await daemonAlive(env)) return
    const end = AbortSignal.any([urgent, AbortSignal.timeout(LIMIT)])
    await deliverDue({ ...env, signal: end }, end)
  } catch (error) {
    log.debug({ error: catalogReason(error) }, 'alerts are left to the daemon')
  }
}
