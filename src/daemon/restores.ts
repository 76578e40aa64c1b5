import { claimNextRecovery, type Recovery } from '../catalog/recoveries.js'
import { catalogReason } from '../catalog/failures.js'
import type { BackupdError } from '../errors.js'
import type { Environment } from '../operation/environment.js'
import { runQueuedRecovery } from '../operation/recovery.js'

/** The restores of this process: taken from the queue one at a time, beside the backups. */
export interface Restores {
  /** Takes the next one, when none runs. */
  fill(): Promise<void>
  /** Whether this process carries out recovery `id`. */
  own(id: number): boolean
  stopTaking(): void
  /** Ends what runs, with `reason`. */
  abort(reason: BackupdError): void
  /** Resolves when nothing runs. */
  idle(): Promise<void>
}

interface Slot {
  recovery: Recovery
  controller: AbortController
  done: Promise<void>
}

export const createRestores = (env: Environment): Restores => {
  let slot: Slot | undefined
  let stopped = false
  let taking: Promise<void> | undefined

  const start = (recovery: Recovery): void => {
    const controller = new AbortController()
    env.log.info({ recovery: recovery.id, backup_id: recovery.source_backup_id, target: recovery.target_system }, 'restore started')
    const carry = async (): Promise<void> => {
      try {
        await runQueuedRecovery({ ...env, signal: controller.signal }, recovery)
      } catch {
        // It is in its row and in the log.
      }
      slot = undefined
      void fill().catch((error: unknown) => env.log.warn({ error: catalogReason(error) }, 'the restores cannot be read, trying again'))
    }
    slot = { recovery, controller, done: Promise.resolve() }
    slot.done = carry()
  }

  const take = async (): Promise<void> => {
    const recovery = await claimNextRecovery(env.catalog.db, env.workerId)
    if (recovery !== undefined) start(recovery)
  }

  const fill = (): Promise<void> => {
    if (stopped || slot !== undefined) return Promise.resolve()
    return (taking ??= take().finally(() => (taking = undefined)))
  }

  return {
    fill,
    own: (id) => slot?.recovery.id === id,
    stopTaking: () => {
      stopped = true
    },
    abort: (reason) => slot?.controller.abort(reason),
    idle: async () => {
      while (slot !== undefined) await slot.done
    },
  }
}
