import { executionById, type Execution } from '../catalog/executions.js'
import { catalogReason } from '../catalog/failures.js'
import { claimNext } from '../catalog/queue.js'
import { BackupdError } from '../errors.js'
import type { Environment } from '../operation/environment.js'
import type { Tracker } from '../operation/progress.js'
import type { Perform } from './options.js'

export interface RunningWork {
  execution: Execution
  tracker: Tracker | undefined
}

export interface WorkEvents {
  /** A run has ended; `error` is why when it did not end well. */
  ended(work: RunningWork, error: unknown): void
}

/** The runs of this process: takes them from the queue, up to so many at a time. */
export interface Work {
  readonly running: ReadonlyMap<number, RunningWork>
  /** Takes work until there is none or no room. */
  fill(): Promise<void>
  /** Takes no more; resolves when what is being taken has been taken. */
  stopTaking(): Promise<void>
  /** Ends everything that runs, with `reason`. */
  abort(reason: BackupdError): void
  /** Somebody may have asked to cancel execution `id`; looks, and ends it. */
  cancelRequested(id: number): Promise<void>
  /** Resolves when nothing runs. */
  idle(): Promise<void>
}

interface Slot extends RunningWork {
  controller: AbortController
  done: Promise<void>
}

export const createWork = (env: Environment, perform: Perform, events: WorkEvents): Work => {
  const running = new Map<number, Slot>()
  let stopped = false
  let again = false
  let filling: Promise<void> | undefined

  const start = (execution: Execution): void => {
    const controller = new AbortController()
    const slot: Slot = { execution, tracker: undefined, controller, done: Promise.resolve() }
    const carry = async (): Promise<void> => {
      let failure: unknown
      try {
        await perform({ ...env, signal: controller.signal }, execution, { onTracker: (tracker) => (slot.tracker = tracker) })
      } catch (error) {
        failure = error
      }
      running.delete(execution.id)
      events.ended(slot, failure)
      // Not waited for: whoever waits for this run must not wait for the next.
      void fill().catch((error: unknown) => env.log.warn({ error: catalogReason(error) }, 'the queue cannot be read, trying again'))
    }
    running.set(execution.id, slot)
    slot.done = carry()
  }

  const take = async (): Promise<void> => {
    do {
      again = false
      while (!stopped && running.size < env.config.concurrency) {
        const execution = await claimNext(env.catalog.db, env.workerId)
        if (execution === undefined) break
        env.log.debug({ execution: execution.id, attempt: execution.attempt }, 'execution claimed')
        start(execution)
      }
    } while (again)
  }

  const fill = (): Promise<void> => {
    if (stopped) return Promise.resolve()
    again = true
    return (filling ??= take().finally(() => (filling = undefined)))
  }

  return {
    running,
    fill,
    stopTaking: async () => {
      stopped = true
      await filling?.catch(() => undefined)
    },
    abort: (reason) => {
      for (const { controller } of running.values()) controller.abort(reason)
    },
    cancelRequested: async (id) => {
      const slot = running.get(id)
      if (slot === undefined) return
      const row = await executionById(env.catalog.db, id)
      if (row?.cancel_requested_at !== null && row?.worker_id === env.workerId) slot.controller.abort(new BackupdError('cancelled', 'cancelled on request'))
    },
    idle: async () => {
      while (running.size > 0) await Promise.all([...running.values()].map(({ done }) => done))
    },
  }
}
