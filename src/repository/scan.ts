import type { Storage, StoredObject } from '../storage/storage.js'
import { MANIFEST, parseBackupId } from './keys.js'

/** A folder that bears the name of a backup, as a listing shows it. */
export interface ListedFolder {
  folder: string
  /** Manifest included. */
  objects: number
  /** Bytes of all of them. */
  size: number
  /** Bytes of its manifest; undefined when there is none, so that it is no backup. */
  manifest: number | undefined
}

/** What a listing of a whole storage shows. */
export interface Listing {
  /** By name, which is by time. */
  folders: ListedFolder[]
  /** Objects in none of these folders. */
  foreign: number
  /** Folders with manifests further below, by the prefix they have in common: another repository, under a prefix of its own. */
  nested: Map<string, number>
}

interface Found extends Omit<Listing, 'folders'> {
  folders: Map<string, ListedFolder>
}

const addBelow = ({ nested }: Found, path: readonly string[]): boolean => {
  const at = path.findIndex((name, depth) => depth > 0 && depth < path.length - 1 && parseBackupId(name) !== undefined)
  if (at < 0) return false
  const prefix = path.slice(0, at).join('/')
  const isManifest = at === path.length - 2 && path.at(-1) === MANIFEST
  nested.set(prefix, (nested.get(prefix) ?? 0) + (isManifest ? 1 : 0))
  return true
}

const addObject = (found: Found, { key, size }: StoredObject): void => {
  const path = key.split('/')
  const [folder = '', ...rest] = path
  if (rest.length === 0 || parseBackupId(folder) === undefined) {
    if (!addBelow(found, path)) found.foreign += 1
    return
  }
  const known = found.folders.get(folder) ?? { folder, objects: 0, size: 0, manifest: undefined }
  found.folders.set(folder, known)
  known.objects += 1
  known.size += size
  if (rest.length === 1 && rest[0] === MANIFEST) known.manifest = size
}

/**
 * Lists a storage once, whatever the number of objects: in memory there is one small record per folder, none per object. Fails with
 * `storage.*`.
 */
export const listRepository = async (storage: Storage, signal: AbortSignal): Promise<Listing> => {
  const found: Found = { folders: new Map(), foreign: 0, nested: new Map() }
  for await (const object of storage.list('', { signal })) addObject(found, object)
  const { foreign, nested } = found
  return { folders: [...found.folders.values()].sort((a, b) => (a.folder < b.folder ? -1 : 1)), foreign, nested }
}
