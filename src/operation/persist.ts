import { setTimeout as wait } from 'node:timers/promises'
import { catalogReason, isUnreachable } from '../catalog/failures.js'
import type { Log } from '../log.js'

const FIRST_PAUSE = 250
const LONGEST_PAUSE = 5_000

/** Runs a write that must not be lost, again and again while the catalog is away, for `patience` milliseconds. */
export const persist = async <T>(write: () => Promise<T>, log: Log, patience = 600_000): Promise<T> => {
  const deadline = performance.now() + patience
  for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 2, LONGEST_PAUSE)) {
    try {
      return await write()
    } catch (error) {
      if (!isUnreachable(error) || performance.now() + pause > deadline) throw error
      log.warn({ error: catalogReason(error) }, 'the catalog is away, trying again')
      await wait(pause)
    }
  }
}
