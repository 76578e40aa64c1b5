import { setTimeout as wait } from 'node:timers/promises'
import { executionById, followUp, leaseOver, type Execution } from '../catalog/executions.js'
import { catalogReason, isUnreachable } from '../catalog/failures.js'
import { jsonObject } from '../catalog/json.js'
import { listenForWork } from '../catalog/notifications.js'
import { liveWorkers } from '../catalog/workers.js'
import { liveExecutionStatuses } from '../catalog/statuses.js'
import { BackupdError, abortError } from '../errors.js'
import { askToCancel } from '../operation/cancel.js'
import type { Environment } from '../operation/environment.js'
import { recordedError } from '../operation/failure.js'
import type { Progress } from '../operation/progress.js'
import type { Context } from './context.js'
import { showProgress } from './progress.js'

const POLL = 1_000
/** How long a catalog that is away is waited for, milliseconds. */
const PATIENCE = 300_000
/** Between two looks whether anybody is there to do the work, milliseconds. */
const ROLL_CALL = 5_000

/** Whether a daemon that takes work is alive. */
export const daemonAlive = async ({ catalog }: Environment): Promise<boolean> =>
  (await liveWorkers(catalog.db, 'daemon')).some(({ state }) => state !== 'draining')

const isLive = ({ status }: Execution): boolean => (liveExecutionStatuses as readonly string[]).includes(status)

/** The row of `id`, also when the catalog has to be waited for. */
const patientRow = async (context: Context, env: Environment, id: number): Promise<Execution> => {
  for (const since = performance.now(); ; await wait(POLL)) {
    if (context.urgent.aborted) throw abortError(context.urgent)
    try {
      const row = await executionById(env.catalog.db, id)
      if (row !== undefined) return row
      throw new BackupdError('execution.not_found', `execution ${id} was removed`, { kind: 'notFound' })
    } catch (error) {
      if (!isUnreachable(error) || performance.now() - since > PATIENCE) throw error
      env.log.warn({ error: catalogReason(error) }, 'the catalog cannot be reached, trying again')
    }
  }
}

interface Watch {
  row: Execution
  woken: AbortController
}

const sleepUntilNews = async (watch: Watch): Promise<void> => {
  await wait(POLL, undefined, { signal: watch.woken.signal }).catch(() => undefined)
  watch.woken = new AbortController()
}

const asProgress = (value: unknown): Progress | undefined => {
  const known = jsonObject(value)
  return typeof known['stage'] === 'string' ? (known as unknown as Progress) : undefined
}

/** Whether nobody is left who would begin the run. Fails with `daemon.gone` when it was begun and is lost. */
const abandoned = async (env: Environment, row: Execution): Promise<boolean> => {
  if (await daemonAlive(env)) return false
  if (row.status === 'pending') return true
  if (!(await leaseOver(env.catalog.db, row.id))) return false
  throw new BackupdError('daemon.gone', `the daemon that ran execution ${row.id} is gone, and there is no other`, {
    hint: 'Start it with "backupd daemon": it records the failure, removes what was stored, and tries again.', details: { execution_id: row.id },
  })
}

/**
 * Shows how an execution goes that a daemon carries out, until it has ended; an attempt that another one follows is not the end.
 * Ctrl-C asks the daemon to cancel, a second one stops watching. Resolves to the row of the good backup, or to one that is `pending`
 * when no daemon is left to begin it. Fails with what the row says.
 */
export const followExecution = async (context: Context, env: Environment, id: number, expected: number | undefined): Promise<Execution> => {
  const watch: Watch = { row: await patientRow(context, env, id), woken: new AbortController() }
  const unlisten = await listenForWork(env.catalog.sql, ({ id: about }) => {
    if (about === watch.row.id) watch.woken.abort()
  }).catch(() => undefined)
  const wake = (): void => watch.woken.abort()
  for (const signal of [context.signal, context.urgent]) signal.addEventListener('abort', wake)
  const stop = showProgress(context.out, () => asProgress(watch.row.progress), expected)
  let asked = false
  let rollCall = performance.now()
  try {
    for (;;) {
      if (context.urgent.aborted) throw abortError(context.urgent)
      if (context.signal.aborted && !asked) {
        asked = true
        await askToCancel(env, watch.row).catch((error: unknown) => {
          if (!(error instanceof BackupdError) || error.code !== 'execution.ended') throw error
        })
      }
      watch.row = await patientRow(context, env, watch.row.id)
      if (!isLive(watch.row)) {
        const next = await followUp(env.catalog.db, watch.row.id)
        if (next === undefined) break
        context.out.line(`execution ${watch.row.id} ended: ${watch.row.error_message ?? watch.row.status}; it is tried again as execution ${next.id}`)
        watch.row = next
      } else if (performance.now() - rollCall > ROLL_CALL) {
        rollCall = performance.now()
        if (await abandoned(env, watch.row)) return watch.row
      }
      await sleepUntilNews(watch)
    }
  } finally {
    stop()
    for (const signal of [context.signal, context.urgent]) signal.removeEventListener('abort', wake)
    await unlisten?.().catch(() => undefined)
  }
  const { row } = watch
  if (row.status === 'completed' || row.status === 'verified') return row
  if (row.status === 'cancelled') throw new BackupdError('cancelled', row.error_message ?? 'cancelled')
  throw recordedError(row.error_message, row.error_details)
}
