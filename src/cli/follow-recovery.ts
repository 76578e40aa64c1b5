import { setTimeout as wait } from 'node:timers/promises'
import { jsonObject } from '../catalog/json.js'
import { isUnreachable } from '../catalog/failures.js'
import { notifyWork } from '../catalog/notifications.js'
import { findRecovery, requestRecoveryCancel, type Recovery } from '../catalog/recoveries.js'
import { endedRecoveryStatuses } from '../catalog/statuses.js'
import { abortError, BackupdError } from '../errors.js'
import type { Environment } from '../operation/environment.js'
import { recordedError } from '../operation/failure.js'
import type { Progress } from '../operation/progress.js'
import type { Validation } from '../operation/restore.js'
import type { Context } from './context.js'
import { daemonAlive } from './follow.js'
import { showProgress } from './progress.js'

const POLL = 1_000
/** Without a daemon for this long, nobody will do it. Milliseconds. */
const PATIENCE = 60_000

const hasEnded = ({ status }: Recovery): boolean => (endedRecoveryStatuses as readonly string[]).includes(status)

const asProgress = (row: Recovery | undefined): Progress | undefined => {
  const known = jsonObject(row?.progress)
  return typeof known['stage'] === 'string' ? (known as unknown as Progress) : undefined
}

const outcome = (row: Recovery): { recovery: Recovery; validation: Validation } => {
  if (row.status === 'completed') return { recovery: row, validation: jsonObject(row.validation_results) as unknown as Validation }
  if (row.status === 'cancelled') throw new BackupdError('cancelled', row.error_message ?? 'cancelled')
  throw recordedError(row.error_message, row.error_details)
}

/**
 * Shows how a restore goes that a daemon carries out, until it has ended. Ctrl-C asks the daemon to cancel, a second one stops
 * watching. Fails with what the row says, or with `daemon.gone`.
 */
export const followRecovery = async (context: Context, env: Environment, id: number, expected: number): Promise<{ recovery: Recovery; validation: Validation }> => {
  let row: Recovery | undefined
  let asked = false
  let seen = performance.now()
  const stop = showProgress(context.out, () => asProgress(row), expected)
  try {
    for (;;) {
      if (context.urgent.aborted) throw abortError(context.urgent)
      if (context.signal.aborted && !asked) {
        asked = true
        await requestRecoveryCancel(env.catalog.db, id)
        await notifyWork(env.catalog.db, { kind: 'cancel', id })
      }
      try {
        row = await findRecovery(env.catalog.db, id)
        if (row === undefined || hasEnded(row)) break
        if (await daemonAlive(env)) seen = performance.now()
        else if (performance.now() - seen > PATIENCE) throw new BackupdError('daemon.gone', 'the daemon that was to restore is gone')
      } catch (error) {
        if (!isUnreachable(error)) throw error
      }
      await wait(POLL)
    }
  } finally {
    stop()
  }
  if (row === undefined) throw new BackupdError('recovery.not_found', `recovery ${id} was removed`, { kind: 'notFound' })
  return outcome(row)
}
