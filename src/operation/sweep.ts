import { writeAudit } from '../audit/audit.js'
import { executionsOfFolder } from '../catalog/copies.js'
import { listExecutions } from '../catalog/executions.js'
import { liveExecutionStatuses } from '../catalog/statuses.js'
import type { StorageRow } from '../catalog/storages.js'
import { messageOf, throwIfAborted } from '../errors.js'
import { MANIFEST, manifestKey, parseBackupId } from '../repository/keys.js'
import type { Storage, StoredObject } from '../storage/storage.js'
import { catalogTime } from './settings/configure.js'
import type { Environment } from './environment.js'
import { openStorageRow } from './sources.js'

/** A folder that no manifest makes a backup. */
export interface LooseFolder {
  folder: string
  objects: number
  /** Bytes. */
  size: number
}

/** What a sweep has removed (in a dry run: would remove), and what it has left, with the reason. */
export interface Sweep {
  /** Only what was last touched before that is removed. */
  older_than: Date
  folders: LooseFolder[]
  /** Abandoned uploads and partial objects; a dry run does not look for them. */
  uploads: string[]
  remaining: { key: string; reason: string }[]
}

export interface SweepOptions {
  /** Hours; what was touched since is left alone. */
  olderThan: number
  dryRun: boolean
}

interface Folder extends LooseFolder {
  manifest: boolean
  newest: Date | undefined
}

// The clocks of the catalog and of a storage differ a little.
const SKEW = 300_000

/** The folders that bear the name of a backup; what else is in a storage is none of ours. */
const readFolders = async (storage: Storage, signal: AbortSignal): Promise<Folder[]> => {
  const folders = new Map<string, Folder>()
  for await (const { key, size, modifiedAt } of storage.list('', { signal })) {
    const [folder = '', ...rest] = key.split('/')
    if (rest.length === 0 || parseBackupId(folder) === undefined) continue
    const known = folders.get(folder) ?? { folder, objects: 0, size: 0, manifest: false, newest: undefined }
    folders.set(folder, known)
    known.objects += 1
    known.size += size
    known.manifest ||= rest.join('/') === MANIFEST
    if (modifiedAt !== undefined && (known.newest === undefined || modifiedAt > known.newest)) known.newest = modifiedAt
  }
  return [...folders.values()].sort((a, b) => (a.folder < b.folder ? -1 : 1))
}

/** Why a folder without a manifest is to stay; undefined when nobody needs it. */
const reasonToKeep = async (env: Environment, row: StorageRow, { folder, newest }: Folder, olderThan: Date): Promise<string | undefined> => {
  const { db } = env.catalog
  const [live] = await executionsOfFolder(db, undefined, folder, liveExecutionStatuses)
  if (live !== undefined) return `it has no manifest yet: execution ${live.id} is ${live.status}`
  const [good] = await executionsOfFolder(db, row.id, folder, ['completed', 'verified', 'corrupted'])
  if (good !== undefined) return `its manifest is gone, but the catalog knows it as the backup of execution ${good.id}: see "backupd verify ${good.id}"`
  const touched = [parseBackupId(folder)?.startedAt, newest].filter((time) => time !== undefined)
  if (touched.some((time) => time >= olderThan)) return 'it has no manifest, and is not old enough yet'
  return undefined
}

const removeFolder = async (storage: Storage, { folder }: Folder, signal: AbortSignal, sweep: Sweep): Promise<void> => {
  const removed: LooseFolder = { folder, objects: 0, size: 0 }
  const removeObject = async ({ key, size }: StoredObject): Promise<void> => {
    try {
      await storage.remove(key, { signal })
      removed.objects += 1
      removed.size += size
    } catch (error) {
      throwIfAborted(signal)
      sweep.remaining.push({ key, reason: messageOf(error) })
    }
  }
  try {
    for await (const object of storage.list(`${folder}/`, { signal })) {
      // It may have become a backup since it was looked at.
      if (object.key === manifestKey(folder)) {
        sweep.remaining.push({ key: `${folder}/`, reason: 'a manifest was written to it meanwhile' })
        return
      }
    }
    for await (const object of storage.list(`${folder}/`, { signal })) await removeObject(object)
  } finally {
    if (removed.objects > 0) sweep.folders.push(removed)
  }
}

// An upload of a run that is going on may be older than the limit; nobody can tell it from an abandoned one but by this.
const beforeLiveRuns = async (env: Environment, olderThan: Date): Promise<Date> => {
  const live = await listExecutions(env.catalog.db, { status: ['running', 'verifying'], limit: 100_000 })
  return new Date(Math.min(olderThan.getTime(), ...live.map(({ started_at }) => started_at.getTime() - SKEW)))
}

const carryOut = async (env: Environment, row: StorageRow, storage: Storage, dryRun: boolean, sweep: Sweep): Promise<void> => {
  const { signal } = env
  // What is live is asked for after the listing: a run that begins in between is not in it.
  for (const found of await readFolders(storage, signal)) {
    if (found.manifest) continue
    const reason = await reasonToKeep(env, row, found, sweep.older_than)
    const { folder, objects, size } = found
    if (reason !== undefined) sweep.remaining.push({ key: `${folder}/`, reason })
    else if (dryRun) sweep.folders.push({ folder, objects, size })
    else await removeFolder(storage, found, signal, sweep)
  }
  if (dryRun) return
  const { removed, remaining } = await storage.sweep({ olderThan: await beforeLiveRuns(env, sweep.older_than), signal })
  sweep.uploads.push(...removed)
  sweep.remaining.push(...remaining)
}

const record = async (env: Environment, row: StorageRow, status: 'success' | 'failure', sweep: Sweep, more: Record<string, unknown> = {}): Promise<void> => {
  await writeAudit(env.catalog.db, {
    event_type: 'storage.swept', event_category: 'backup', action: 'delete', status, actor: env.actor,
    resource: { type: 'storage', id: row.id, name: row.name },
    event_data: { ...sweep, older_than: sweep.older_than.toISOString(), ...more }, risk_level: 'medium',
  })
}

/**
 * Removes the partial objects in `row`'s storage that nobody has touched for a day and that are older than every run that is going on:
 * what a killed process left, where no daemon sweeps. On record when there were any. Gives their keys.
 */
export const sweepPartial = async (env: Environment, row: StorageRow): Promise<string[]> => {
  const now = await catalogTime(env.catalog.db)
  const storage = await openStorageRow(env, row)
  try {
    const olderThan = await beforeLiveRuns(env, new Date(now.getTime() - 86_400_000))
    const { removed: uploads, remaining } = await storage.sweep({ olderThan, signal: env.signal })
    if (uploads.length > 0) await record(env, row, 'success', { older_than: olderThan, folders: [], uploads, remaining })
    return uploads
  } finally {
    await storage.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
  }
}

/**
 * Removes what no backup is and nobody works on: folders without a manifest, and abandoned uploads. On record, also when it ends half-way.
 */
export const sweepStorage = async (env: Environment, row: StorageRow, { olderThan, dryRun }: SweepOptions): Promise<Sweep> => {
  const now = await catalogTime(env.catalog.db)
  const sweep: Sweep = { older_than: new Date(now.getTime() - olderThan * 3_600_000), folders: [], uploads: [], remaining: [] }
  const storage = await openStorageRow(env, row)
  try {
    await carryOut(env, row, storage, dryRun, sweep)
  } catch (error) {
    if (!dryRun) await record(env, row, 'failure', sweep, { message: messageOf(error) }).catch((secondary: unknown) => env.log.warn({ error: messageOf(secondary) }, 'the sweep is not on record'))
    throw error
  } finally {
    await storage.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
  }
  if (!dryRun) await record(env, row, 'success', sweep)
  return sweep
}
