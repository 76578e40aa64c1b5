import type { Execution } from '../catalog/executions.js'
import { keepPresence } from '../daemon/presence.js'
import { BackupdError } from '../errors.js'
import type { Environment } from '../operation/environment.js'
import { runExecution } from '../operation/execution.js'
import type { Tracker } from '../operation/progress.js'
import type { Context } from './context.js'
import { flushAlerts } from './flush-alerts.js'
import { followExecution } from './follow.js'
import { showProgress } from './progress.js'

/** Carries out a queued execution in this process, or follows it when a daemon took it first. `expected`: bytes that will be read. */
export const runHere = async (context: Context, env: Environment, id: number, expected: number | undefined): Promise<Execution> => {
  const leave = await keepPresence(env, 'cli')
  try {
    let tracker: Tracker | undefined
    const stop = showProgress(context.out, () => tracker?.progress, expected)
    return await runExecution(env, id, { onTracker: (started) => (tracker = started) }).finally(stop)
  } catch (error) {
    // A daemon has come up meanwhile.
    if (!(error instanceof BackupdError) || error.code !== 'execution.taken') throw error
    return followExecution(context, env, id, expected)
  } finally {
    await leave()
    await flushAlerts(context, env)
  }
}
