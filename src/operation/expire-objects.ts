import type { Execution } from '../catalog/executions.js'
import { sharersOf } from '../catalog/expiry.js'
import { jsonList, jsonObject } from '../catalog/json.js'
import { messageOf, throwIfAborted } from '../errors.js'
import { manifestKey } from '../repository/keys.js'
import { hasCode } from '../storage/failure.js'
import type { Storage } from '../storage/storage.js'
import type { Environment } from './environment.js'
import { folderOf, isCopy } from './folder.js'
import { knownManifest } from './verification.js'

/** What became of the objects of an execution. */
export interface Removal {
  /** Bytes that were removed. */
  freed: number
  /** Why something is left; empty when all is gone. */
  problems: string[]
  /** Nothing was removed, so the backup is what it was. */
  untouched: boolean
}

const refused = (problem: string): Removal => ({ freed: 0, problems: [problem], untouched: true })
const nothing: Removal = { freed: 0, problems: [], untouched: true }

/** The keys of a backup's objects with their sizes: what the storage lists, or, where it may not be listed, what the manifest names. */
const objectsOf = async (storage: Storage, execution: Execution, folder: string, signal: AbortSignal): Promise<Map<string, number>> => {
  const objects = new Map<string, number>()
  try {
    for await (const { key, size } of storage.list(`${folder}/`, { signal })) objects.set(key, size)
  } catch (error) {
    const text = knownManifest(execution)
    if (!hasCode(error, 'storage.denied') || text === null) throw error
    for (const part of jsonList(jsonObject(JSON.parse(text))['parts']).map(jsonObject)) objects.set(String(part['key']), Number(part['stored_size'] ?? 0))
    objects.set(manifestKey(folder), Buffer.byteLength(text))
  }
  return objects
}

/** Why the objects at hand cannot be taken for those of the execution; undefined when nothing speaks against it. */
const misplaced = ({ status, storage_location, expiring_at, id }: Execution, storage: Storage, folder: string, objects: ReadonlyMap<string, number>): string | undefined => {
  const here = storage.location(folder)
  const whole = objects.has(manifestKey(folder))
  if (status !== 'completed' && status !== 'verified') return undefined
  if (storage_location !== null && storage_location !== here && !whole) return `it was stored at ${storage_location}, and the storage now means ${here}, where it is not`
  // One that was begun to be removed may be gone but for its record.
  return objects.size === 0 && expiring_at === null
    ? `nothing of it is at ${here}: is everything mounted? "backupd verify ${id}" puts on record that it is lost` : undefined
}

/**
 * Removes the objects of an execution, the manifest first, so that at no moment something looks whole that is not. What the storage
 * refuses is told and not thrown.
 */
export const removeObjects = async (env: Environment, storage: Storage, execution: Execution): Promise<Removal> => {
  const { signal } = env
  const folder = folderOf(execution)
  const failed = ['failed', 'cancelled'].includes(execution.status)
  // Until they are gone, the daemon still clears away what a lost run has left.
  if (failed && jsonObject(execution.execution_metadata)['leftovers'] === true) return refused('what it left in the storage is yet to be cleared away')
  // It never began to write, or what is in a folder of that name is not of this run.
  if (failed && (execution.storage_location === null || isCopy(execution))) return nothing
  if ((await sharersOf(env.catalog.db, execution, folder)).length > 0) return nothing
  let objects: Map<string, number>
  try {
    objects = await objectsOf(storage, execution, folder, signal)
  } catch (error) {
    throwIfAborted(signal)
    return refused(messageOf(error))
  }
  const problem = misplaced(execution, storage, folder, objects)
  if (problem !== undefined) return refused(problem)

  const removal: Removal = { freed: 0, problems: [], untouched: true }
  const remove = async (key: string): Promise<boolean> => {
    try {
      await storage.remove(key, { signal })
      removal.freed += objects.get(key) ?? 0
      removal.untouched = false
      return true
    } catch (error) {
      throwIfAborted(signal)
      removal.problems.push(`${key}: ${messageOf(error)}`)
      return false
    }
  }
  const manifest = manifestKey(folder)
  if (!(await remove(manifest))) {
    removal.untouched = (await storage.stat(manifest, { signal })) !== undefined
    return removal
  }
  for (const key of objects.keys()) if (key !== manifest) await remove(key)
  return removal
}
