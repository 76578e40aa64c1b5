import { sql } from '../../catalog/drizzle.js'
import type { Anchor } from '../../audit/anchor.js'
import { BackupdError, messageOf, throwIfAborted } from '../../errors.js'
import { MANIFEST, manifestKey, parseBackupId } from '../../repository/keys.js'
import { parseManifest, type Manifest } from '../../repository/manifest.js'
import type { Storage } from '../../storage/storage.js'
import type { Environment } from '../environment.js'
import { readManifest } from '../readback.js'
import { openStorageRow } from '../sources.js'
import { needStorage } from '../settings/storages.js'

/** The heads of the audit trail that were found in manifests. */
export interface Anchors {
  anchors: Anchor[]
  /** Manifests that were looked at. */
  manifests: number
  /** Why some could not be read, one sentence each. */
  warnings: string[]
}

const PAGE = 500

const note = (found: Anchors, { backup_id, audit_head }: Manifest): void => {
  found.manifests += 1
  if (audit_head !== undefined) found.anchors.push({ ...audit_head, backup_id })
}

/** Those in the manifests that the catalog keeps. */
export const catalogAnchors = async ({ catalog, signal }: Pick<Environment, 'catalog' | 'signal'>): Promise<Anchors> => {
  const found: Anchors = { anchors: [], manifests: 0, warnings: [] }
  for (let last = 0; ;) {
    throwIfAborted(signal)
    const rows = [...await catalog.db.execute<{ id: number; backup_id: string; manifest: string }>(sql`
      SELECT id, backup_id, execution_metadata ->> 'manifest' AS manifest FROM backup_executions
      WHERE id > ${last} AND execution_metadata ->> 'manifest' IS NOT NULL ORDER BY id LIMIT ${PAGE}`)]
    for (const { backup_id, manifest } of rows) {
      try {
        note(found, parseManifest(manifest, backup_id))
      } catch (error) {
        found.warnings.push(`the catalog's copy of a manifest cannot be read: ${messageOf(error)}`)
      }
    }
    const end = rows.at(-1)
    if (end === undefined) return found
    last = Number(end.id)
  }
}

const readAll = async (storage: Storage, signal: AbortSignal): Promise<Anchors> => {
  const found: Anchors = { anchors: [], manifests: 0, warnings: [] }
  const folders = new Set<string>()
  for await (const { key } of storage.list('', { signal })) {
    const [folder = '', name] = key.split('/')
    if (name === MANIFEST && key === manifestKey(folder) && parseBackupId(folder) !== undefined) folders.add(folder)
  }
  for (const folder of [...folders].sort()) {
    throwIfAborted(signal)
    try {
      note(found, (await readManifest(storage, folder, null, signal)).manifest)
    } catch (error) {
      throwIfAborted(signal)
      if (!(error instanceof BackupdError) || !/^(integrity|repository)\./.test(error.code)) throw error
      found.warnings.push(error.message)
    }
  }
  return found
}

/** Those in the manifests of a storage, which who can write to the catalog alone cannot change. Fails with `storage.*`. */
export const storageAnchors = async (env: Environment, name: string): Promise<Anchors> => {
  const storage = await openStorageRow(env, await needStorage(env.catalog.db, name))
  try {
    return await readAll(storage, env.signal)
  } finally {
    await storage.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
  }
}
