import { hostname } from 'node:os'
import { setTimeout as wait } from 'node:timers/promises'
import { heartbeat, registerWorker, removeWorker } from '../catalog/workers.js'
import type { WorkerKind } from '../catalog/statuses.js'
import { catalogReason } from '../catalog/failures.js'
import type { Environment } from '../operation/environment.js'
import { version } from '../version.js'

/** A third of the lease. Milliseconds. */
const INTERVAL = 10_000
/** A beat that a dead network holds up is not waited for longer. Milliseconds. */
const PATIENCE = 5_000

export type WorkerState = 'running' | 'draining'

/** This process among the workers that others see. */
export interface Presence {
  /** Says that this process is alive, when it has not done so for a while. */
  beat(state: WorkerState, details?: unknown): Promise<void>
  leave(): Promise<void>
}

/** The presence of this process; nobody sees it before the first `beat`. */
export const createPresence = ({ catalog, workerId, log }: Pick<Environment, 'catalog' | 'workerId' | 'log'>, kind: WorkerKind): Presence => {
  let last = -Infinity
  let lastState: WorkerState | undefined
  let left = false
  let beating: Promise<void> = Promise.resolve()

  const say = async (state: WorkerState, details: unknown): Promise<void> => {
    const now = performance.now()
    if (left || (state === lastState && now - last < INTERVAL - 500)) return
    const known = lastState !== undefined && (await heartbeat(catalog.db, workerId, state, details))
    if (!known) await registerWorker(catalog.db, { id: workerId, kind, host: hostname(), pid: process.pid, version, state, details })
    last = now
    lastState = state
  }

  return {
    beat: (state, details) => (beating = beating.catch(() => undefined).then(() => say(state, details))),
    leave: async () => {
      // A beat under way would put back what is taken off here.
      left = true
      await Promise.race([beating.catch(() => undefined), wait(PATIENCE, undefined, { ref: false })])
      await removeWorker(catalog.db, workerId).catch((error: unknown) => log.warn({ error: catalogReason(error) }, 'the worker could not be taken off the list; it is dropped when its lease ends'))
    },
  }
}

/** Keeps a process that runs for a while, such as a command, among the workers; the returned function ends that. */
export const keepPresence = async (env: Pick<Environment, 'catalog' | 'workerId' | 'log'>, kind: WorkerKind): Promise<() => Promise<void>> => {
  const presence = createPresence(env, kind)
  await presence.beat('running')
  const timer = setInterval(() => void presence.beat('running').catch((error: unknown) => env.log.warn({ error: catalogReason(error) }, 'the catalog is away')), INTERVAL)
  return async () => {
    clearInterval(timer)
    await presence.leave()
  }
}
