import { setTimeout as wait } from 'node:timers/promises'
import { openCatalog, type Catalog } from '../catalog/connect.js'
import type { Config } from '../config.js'
import { BackupdError, messageOf } from '../errors.js'
import type { Log } from '../log.js'

const FIRST_PAUSE = 1_000
const LONGEST_PAUSE = 15_000

/**
 * Opens the catalog, migrated, as soon as it can be reached; waits for that as long as it takes. Undefined when `signal` came first.
 * Fails with what waiting does not cure, such as `catalog.newer_schema` or `catalog.auth`.
 */
export const openWhenReachable = async (config: Config, log: Log, signal: AbortSignal, onFailure: (error: unknown) => void): Promise<Catalog | undefined> => {
  for (let pause = FIRST_PAUSE; !signal.aborted; pause = Math.min(pause * 2, LONGEST_PAUSE)) {
    try {
      return await openCatalog({ databaseUrl: config.databaseUrl, stateDir: config.stateDir, log, signal })
    } catch (error) {
      if (signal.aborted) return undefined
      if (!(error instanceof BackupdError) || !error.retryable) throw error
      onFailure(error)
      log.debug({ error: messageOf(error), pause }, 'the catalog cannot be opened yet')
    }
    await wait(pause, undefined, { signal }).catch(() => undefined)
  }
  return undefined
}
