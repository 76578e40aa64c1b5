import { createHash } from 'node:crypto'
import type { NewExecution } from '../catalog/executions.js'
import type { Recorded } from '../catalog/found.js'
import { backupTypes } from '../catalog/statuses.js'
import type { StorageRow } from '../catalog/storages.js'
import { BackupdError } from '../errors.js'
import { manifestKey } from '../repository/keys.js'
import type { Manifest } from '../repository/manifest.js'
import type { ListedFolder } from '../repository/scan.js'
import type { Storage } from '../storage/storage.js'
import { storedBackup } from './backup.js'
import { readManifest } from './readback.js'

/** No manifest comes near: ten thousand parts need a quarter of it. Several are in memory at a time. */
const LARGEST = 16 * 1024 * 1024

/** A backup that a storage holds. */
export interface FoundBackup {
  folder: string
  manifest: Manifest
  text: string
  checksum: string
  /** What the listing says against it: parts that are missing or of another size. */
  damage: string[]
}

const invalid = (folder: string, why: string): BackupdError =>
  new BackupdError('repository.manifest_invalid', `${manifestKey(folder)} is not a manifest of a backup: ${why}`, { kind: 'integrity', details: { part: manifestKey(folder) } })

const check = (folder: string, { parts, backup_type: type }: Manifest): void => {
  const stray = parts.find(({ key }) => !key.startsWith(`${folder}/`))
  if (stray !== undefined) throw invalid(folder, `it names a part outside of its folder: ${stray.key}`)
  if (!(backupTypes as readonly string[]).includes(type)) throw invalid(folder, `there is no backup type ${JSON.stringify(type)}`)
}

/** Compares the manifest with the listing; only where the sums differ are the objects of the folder listed again, one by one. */
const damageOf = async (storage: Storage, listed: ListedFolder, { parts }: Manifest, signal: AbortSignal): Promise<string[]> => {
  const expected = parts.reduce((sum, part) => sum + part.stored_size, listed.manifest ?? 0)
  if (listed.objects === parts.length + 1 && listed.size === expected) return []
  const sizes = new Map<string, number>()
  for await (const { key, size } of storage.list(`${listed.folder}/`, { signal })) sizes.set(key, size)
  return parts.flatMap(({ key, stored_size: wanted }) => {
    const size = sizes.get(key)
    if (size === wanted) return []
    return [size === undefined ? `${key}: it is not in the storage` : `${key}: it holds ${size} bytes of ${wanted}`]
  })
}

/**
 * Reads and checks the manifest of a listed folder, and whether its parts are there. Needs no key. Fails with `repository.manifest_invalid`,
 * `repository.format_newer`, `integrity.damaged`, or `storage.*` when it cannot be read.
 */
export const readFound = async (storage: Storage, listed: ListedFolder, signal: AbortSignal): Promise<FoundBackup> => {
  const { folder, manifest: size = 0 } = listed
  if (size > LARGEST) throw invalid(folder, `it has ${size} bytes, more than any has`)
  const { manifest, text, checksum } = await readManifest(storage, folder, null, signal)
  check(folder, manifest)
  return { folder, manifest, text, checksum, damage: await damageOf(storage, listed, manifest, signal) }
}

/** Always the same for a folder of a storage, so that two rebuilds at a time do not record it twice. */
const copyId = (folder: string, storage: number): string =>
  `${folder.slice(0, 88)}-copy-${createHash('sha256').update(`${storage} ${folder}`).digest('hex').replace(/[^a-f2-7]/g, '').slice(0, 6)}`

/** What of the catalog a found backup belongs to. */
export interface Belonging {
  storage: StorageRow
  location: string
  schedule: number | null
  source: number | null
  /** The execution in another storage that bears its backup_id. */
  namesake: Recorded | undefined
  now: Date
}

const seconds = (from: string, to: string): number => Math.min(2_147_483_647, Math.max(0, Math.round((Date.parse(to) - Date.parse(from)) / 1000)))

/** The row of a found backup: completed, not yet verified; corrupted when parts of it are missing. One that bears the backup_id of another row lies in a folder of that name. */
export const foundRow = ({ folder, manifest, text, damage }: FoundBackup, { storage, location, schedule, source, namesake, now }: Belonging): NewExecution => {
  const { checksum, keyHash, plainSize, storedSize } = storedBackup(manifest, text)
  const original = namesake?.checksum === checksum ? namesake : undefined
  return {
    backup_id: namesake === undefined ? folder : copyId(folder, storage.id),
    copy_of: original?.id ?? null,
    schedule_id: schedule,
    source_id: source,
    storage_backend_id: storage.id,
    backup_type: manifest.backup_type,
    // What began the run is not in its manifest; this is what brought the row here.
    triggered_by: 'disaster_recovery',
    status: damage.length === 0 ? 'completed' : 'corrupted',
    started_at: new Date(manifest.started_at),
    completed_at: new Date(manifest.completed_at),
    duration_seconds: seconds(manifest.started_at, manifest.completed_at),
    size_bytes: plainSize,
    compressed_size_bytes: storedSize,
    compression_ratio: storedSize === 0 ? 1 : plainSize / storedSize,
    included_components: manifest.parts.map(({ kind }) => kind),
    storage_location: location.slice(0, 1000),
    checksum,
    encryption_key_hash: keyHash,
    verification_status: damage.length === 0 ? 'pending' : 'corrupted',
    ...(damage.length === 0 ? {} : {
      error_message: `found damaged: ${damage.slice(0, 5).join('; ')}${damage.length > 5 ? `; and ${damage.length - 5} more` : ''}`,
      error_details: { code: 'integrity.damaged', kind: 'integrity', stage: 'rebuild', damage: damage.slice(0, 100) },
    }),
    attempt: 1,
    backup_config: {
      schedule: manifest.schedule, source: manifest.source, storage: storage.name, storage_type: storage.backend_type,
      backup_type: manifest.backup_type, compression_type: manifest.compression, compression_level: manifest.compression_level,
      encrypt_backup: manifest.recipients.length > 0,
      ...(original === undefined ? {} : { copy_of: original.backup_id }),
    },
    execution_metadata: {
      ...(namesake === undefined ? {} : { stored_as: folder }),
      manifest: text, tool_version: manifest.tool_version, server_version: manifest.server_version, pg_dump_version: manifest.pg_dump_version,
      rebuilt_at: now.toISOString(),
    },
  }
}
