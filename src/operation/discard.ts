import { BackupdError, messageOf } from '../errors.js'
import type { Log } from '../log.js'
import { manifestKey } from '../repository/keys.js'
import type { Storage } from '../storage/storage.js'

// Long enough for a slow storage, short enough that a cancelled command ends.
const LIMIT = 60_000

/** Removes what a backup that failed has stored, the manifest first, so that at no moment a folder looks whole. Gives the keys that could not be removed. */
export const discardObjects = async (storage: Storage, backupId: string, log: Log): Promise<string[]> => {
  const remaining: string[] = []
  const signal = AbortSignal.timeout(LIMIT)
  const remove = async (key: string): Promise<void> => {
    try {
      await storage.remove(key, { signal })
    } catch (error) {
      remaining.push(key)
      log.warn({ key, error: messageOf(error) }, 'an object of a failed backup could not be removed')
    }
  }
  await remove(manifestKey(backupId))
  try {
    for await (const { key } of storage.list(`${backupId}/`, { signal })) await remove(key)
  } catch (error) {
    remaining.push(`${backupId}/`)
    log.warn({ error: error instanceof BackupdError ? error.message : messageOf(error) }, 'the objects of a failed backup could not be listed')
  }
  return remaining
}
