import type { Execution } from '../catalog/executions.js'
import { catalogReason } from '../catalog/failures.js'
import { claimScrub, lockScrubbed, releaseScrub, renewScrub, SCRUB_LEASE } from '../catalog/scrub.js'
import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import type { Storage } from '../storage/storage.js'
import type { Environment } from './environment.js'
import { createTracker, type Tracker } from './progress.js'
import { recordVerification } from './reverify.js'
import { openStorageRow, storageRow } from './sources.js'
import { checkBackup } from './verification.js'

/** Before a backup that could not be read is tried again. Seconds. */
const RETRY = 3_600

/** What became of one backup that was read back. */
export type Scrubbed = { execution: Execution; outcome: 'whole' | 'damaged' | 'unreadable' | 'gone' }

interface Hold {
  signal: AbortSignal
  end(): void
}

// Renewed well before it runs out. What moves no byte for the stall's time is given up, because nobody waits at a keyboard to end it.
const hold = (env: Environment, execution: Execution, tracker: Tracker): Hold => {
  const own = new AbortController()
  const follow = (): void => own.abort(env.signal.reason)
  env.signal.addEventListener('abort', follow)
  let seen = -1
  let moved = performance.now()
  const ask = async (): Promise<void> => {
    if (tracker.progress.checked_bytes !== seen) [seen, moved] = [tracker.progress.checked_bytes, performance.now()]
    else if (performance.now() - moved > env.config.stallTimeout) own.abort(new BackupdError('scrub.stalled', 'no byte was read for too long', { retryable: true }))
    if (!(await renewScrub(env.catalog.db, execution.id, env.workerId))) own.abort(new BackupdError('lease.lost', 'another worker reads this backup back', { retryable: true }))
  }
  const timer = setInterval(() => void ask().catch((error: unknown) => env.log.debug({ error: catalogReason(error) }, 'the claim could not be renewed yet')), Math.min(SCRUB_LEASE * 100, env.config.stallTimeout))
  if (env.signal.aborted) follow()
  return {
    signal: own.signal,
    end: () => {
      clearInterval(timer)
      env.signal.removeEventListener('abort', follow)
    },
  }
}

const holdsAnything = async (storage: Storage, signal: AbortSignal): Promise<boolean> => {
  for await (const { key } of storage.list('', { signal })) if (!key.startsWith('.backupd-')) return true
  return false
}

const readBack = async (env: Environment, execution: Execution): Promise<Scrubbed['outcome']> => {
  const tracker = createTracker()
  const held = hold(env, execution, tracker)
  try {
    const storage = await openStorageRow(env, await storageRow(env, execution.storage_backend_id))
    try {
      // Rot shows in the stored bytes; private keys need not be touched for it.
      const outcome = await checkBackup(env, { execution, storage, tracker, signal: held.signal, level: 'checksum' })
      // A disk that is not mounted looks like this, and would have every backup called damaged.
      if (outcome.error !== undefined && outcome.verification?.bytes === 0 && !(await holdsAnything(storage, held.signal))) {
        throw new BackupdError('scrub.empty_storage', `there is nothing at all at ${storage.location('')}`, { hint: 'Is its disk mounted, and is it the right bucket or folder?' })
      }
      const row = await recordVerification(env, execution, outcome, (tx) => lockScrubbed(tx, execution.id, env.workerId))
      if (row === undefined) return 'gone'
      return outcome.error === undefined ? 'whole' : 'damaged'
    } finally {
      await storage.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
    }
  } finally {
    held.end()
  }
}

/**
 * Takes the backup that has waited longest to be read back, if one is due by BACKUPD_SCRUB_DAYS, and reads it: every part's digest is compared. A damaged
 * one becomes `corrupted`. Undefined when none is due. Of any number of workers exactly one reads each. Fails when the catalog cannot be reached, or on abort.
 */
export const scrubOne = async (env: Environment): Promise<Scrubbed | undefined> => {
  const { config, catalog: { db }, workerId } = env
  if (config.scrubDays === 0) return undefined
  const execution = await claimScrub(db, workerId, config.scrubDays)
  if (execution === undefined) return undefined
  const log = env.log.child({ execution: execution.id, backup_id: execution.backup_id })
  let retryIn: number | undefined
  try {
    const outcome = await readBack({ ...env, log }, execution)
    if (outcome === 'damaged') log.error('a stored backup was found damaged')
    else log.info({ outcome }, 'a stored backup was read back')
    return { execution, outcome }
  } catch (error) {
    throwIfAborted(env.signal)
    retryIn = RETRY
    log.warn({ error: catalogReason(error) }, 'a stored backup could not be read back, and is tried again later')
    return { execution, outcome: 'unreadable' }
  } finally {
    await releaseScrub(db, execution.id, workerId, retryIn).catch((error: unknown) => log.warn({ error: catalogReason(error) }, 'the claim could not be given back; it runs out by itself'))
  }
}
