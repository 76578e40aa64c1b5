import { writeAudit } from '../audit/audit.js'
import type { Execution } from '../catalog/executions.js'
import { catalogReason } from '../catalog/failures.js'
import { insertFound, readRecorded, type Recorded } from '../catalog/found.js'
import { listSchedules, type Schedule } from '../catalog/schedules.js'
import { listSources } from '../catalog/sources.js'
import { refreshStorageTotals, type StorageRow } from '../catalog/storages.js'
import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import { manifestKey } from '../repository/keys.js'
import { listRepository, type ListedFolder, type Listing } from '../repository/scan.js'
import type { Storage } from '../storage/storage.js'
import { catalogTime } from './settings/configure.js'
import type { Environment } from './environment.js'
import { foundRow, readFound, type FoundBackup } from './found-backup.js'
import { openStorageRow } from './sources.js'

/** Manifests that are read at a time, and rows that are stored at a time. */
const AT_ONCE = 8

/** A folder that is no backup to this program, or not a good one, and why. */
export interface Trouble {
  folder: string
  /** `newer`: of a format to come. `invalid`: no manifest. `damaged`: on record, with parts missing. `unreadable`: the storage does not give it. */
  kind: 'newer' | 'invalid' | 'damaged' | 'unreadable'
  code: string
  reason: string
}

/** What a rebuild has found, and what it has recorded (in a dry run: would record). */
export interface Rebuild {
  recorded: { id: number | null; backup_id: string; folder: string; schedule: string | null; source: string; started_at: string; size: number; status: string; copy_of: string | null }[]
  /** Backups that were on record before. */
  known: number
  troubles: Trouble[]
  /** Folders without a manifest: a run that has not ended, or failed. */
  incomplete: number
  /** Objects that are none of a backup. */
  foreign: number
  warnings: string[]
}

interface Scene {
  env: Environment
  row: StorageRow
  storage: Storage
  dryRun: boolean
  schedules: readonly Schedule[]
  sources: ReadonlyMap<string, number>
  /** By backup_id, those of other storages. */
  elsewhere: ReadonlyMap<string, Recorded>
  now: Date
  rebuild: Rebuild
}

/** Folders of this storage that are on record, and what in other storages a folder might be a copy of. */
const readKnown = async ({ catalog }: Environment, storage: StorageRow): Promise<{ here: Set<string>; elsewhere: Map<string, Recorded> }> => {
  const here = new Set<string>()
  const elsewhere = new Map<string, Recorded>()
  for await (const recorded of readRecorded(catalog.db)) {
    if (recorded.storage_backend_id === storage.id) here.add(recorded.stored_as ?? recorded.backup_id)
    // An original goes before a copy of it.
    else if (recorded.stored_as === null) elsewhere.set(recorded.backup_id, recorded)
  }
  return { here, elsewhere }
}

/** The schedule of that name, when there is exactly one that writes or copies to this storage. */
const scheduleOf = ({ schedules, row }: Scene, name: string | null): number | null => {
  const fitting = schedules.filter((schedule) => schedule.name === name && [schedule.storage_backend_id, schedule.copy_to].includes(row.id))
  return fitting.length === 1 ? (fitting[0]?.id ?? null) : null
}

const troubleOf = (folder: string, error: unknown): Trouble | undefined => {
  if (!(error instanceof BackupdError)) return undefined
  const { code, message: reason } = error
  if (code === 'repository.format_newer') return { folder, kind: 'newer', code, reason }
  if (error.kind === 'integrity') return { folder, kind: 'invalid', code, reason }
  // What is about one object alone keeps no other from being found; a storage that is not there ends the rebuild.
  if (['storage.denied', 'storage.archived', 'storage.incomplete', 'storage.changed'].includes(code)) return { folder, kind: 'unreadable', code, reason }
  return undefined
}

const readOne = async ({ storage, env, rebuild }: Scene, listed: ListedFolder): Promise<FoundBackup[]> => {
  try {
    const found = await readFound(storage, listed, env.signal)
    if (found.damage.length > 0) rebuild.troubles.push({ folder: found.folder, kind: 'damaged', code: 'integrity.damaged', reason: found.damage.join('; ') })
    return [found]
  } catch (error) {
    throwIfAborted(env.signal)
    const trouble = troubleOf(listed.folder, error)
    if (trouble === undefined) throw error
    // Retention may have removed it since it was listed.
    if (trouble.code === 'integrity.damaged' && (await storage.stat(manifestKey(listed.folder), { signal: env.signal })) === undefined) return []
    rebuild.troubles.push(trouble)
    return []
  }
}

const record = async (scene: Scene, batch: readonly FoundBackup[]): Promise<void> => {
  const { env, row: storage, rebuild, elsewhere, sources, now, dryRun } = scene
  const rows = batch.map((found) => {
    const namesake = elsewhere.get(found.folder)
    if (namesake !== undefined && namesake.checksum !== found.checksum) {
      rebuild.warnings.push(`${found.folder} bears the backup_id of execution ${namesake.id} in another storage, but is not the same backup: it is recorded under a name of its own`)
    }
    return foundRow(found, {
      storage, location: scene.storage.location(found.folder), namesake, now,
      schedule: scheduleOf(scene, found.manifest.schedule), source: sources.get(found.manifest.source) ?? null,
    })
  })
  const stored = dryRun ? undefined : new Map((await insertFound(env.catalog.db, rows)).map((execution): [string, Execution] => [execution.backup_id, execution]))
  for (const [at, row] of rows.entries()) {
    const { folder, manifest } = batch[at] as FoundBackup
    if (stored !== undefined && !stored.has(row.backup_id)) rebuild.known += 1
    else {
      rebuild.recorded.push({
        id: stored?.get(row.backup_id)?.id ?? null, backup_id: row.backup_id, folder, schedule: manifest.schedule, source: manifest.source,
        started_at: manifest.started_at, size: row.compressed_size_bytes ?? 0, status: row.status, copy_of: row.copy_of === null ? null : folder,
      })
    }
  }
}

/** What two repositories in one place look like: another prefix below this one, or one name of a schedule for several databases. */
const placeWarnings = ({ nested, folders, foreign }: Listing): string[] => [
  // A share that is not mounted and a prefix with a slip of the pen look like this too.
  ...(folders.length + foreign + nested.size === 0 ? ['there is nothing in this storage: compare its place and prefix with those that the backups were written to'] : []),
  ...[...nested].filter(([, backups]) => backups > 0).map(([prefix, backups]) =>
    `below ${prefix}/ lies another repository with ${backups} ${backups === 1 ? 'backup' : 'backups'}, which is left alone: add a storage whose prefix ends in ${prefix}, and rebuild from that`),
]

const mixtureWarnings = (databases: ReadonlyMap<string, ReadonlySet<string>>): string[] =>
  [...databases].filter(([, names]) => names.size > 1).map(([schedule, names]) =>
    `backups of "${schedule}" are of several databases: ${[...names].slice(0, 5).join(', ')}. Two repositories may lie under this prefix, or the schedule was changed; name a backup by its backup_id, not by latest:${schedule}`)

const search = async (scene: Scene, listing: Listing, here: ReadonlySet<string>): Promise<void> => {
  const { rebuild, env } = scene
  rebuild.foreign = listing.foreign
  rebuild.warnings.push(...placeWarnings(listing))
  const whole = listing.folders.filter(({ manifest }) => manifest !== undefined)
  const wanted = whole.filter(({ folder }) => !here.has(folder))
  rebuild.incomplete = listing.folders.length - whole.length
  rebuild.known = whole.length - wanted.length
  const databases = new Map<string, Set<string>>()
  for (let at = 0; at < wanted.length; at += AT_ONCE) {
    throwIfAborted(env.signal)
    const batch = (await Promise.all(wanted.slice(at, at + AT_ONCE).map((listed) => readOne(scene, listed)))).flat()
    for (const { manifest: { schedule, source, database } } of batch) {
      if (schedule !== null) databases.set(schedule, (databases.get(schedule) ?? new Set()).add(`${database} of source ${source}`))
    }
    await record(scene, batch)
  }
  rebuild.troubles.sort((a, b) => (a.folder < b.folder ? -1 : 1))
  rebuild.warnings.push(...mixtureWarnings(databases))
}

const countsOf = ({ recorded, known, troubles, incomplete, foreign }: Rebuild): Record<string, unknown> => ({
  recorded: recorded.length, known, incomplete, foreign, troubles: troubles.length,
  ...(troubles.length === 0 ? {} : { first_troubles: troubles.slice(0, 20).map(({ folder, code }) => ({ folder, code })) }),
})

/** The storage's totals, and the entry of the audit trail: one for each rebuild, however it ended. */
const conclude = (env: Environment, row: StorageRow, rebuild: Rebuild, status: 'success' | 'warning' | 'failure', data: Record<string, unknown> = {}): Promise<void> =>
  env.catalog.db.transaction(async (tx) => {
    await refreshStorageTotals(tx, row.id)
    await writeAudit(tx, {
      event_type: 'catalog.rebuilt', event_category: 'recovery', action: 'create', status, actor: env.actor, risk_level: 'medium',
      resource: { type: 'storage', id: row.id, name: row.name }, event_data: { ...countsOf(rebuild), ...data },
    })
  })

/**
 * Finds every backup of a storage from its manifests alone, and puts those on record that are not yet. Rows that are there stay as they
 * are, and nothing in the storage is changed; a second call finds nothing more to do. No key is needed. What is no backup to this
 * program is told in `troubles`. Fails with `storage.*` when the storage cannot be listed or read; what was recorded until then stays.
 */
export const rebuildCatalog = async (env: Environment, row: StorageRow, { dryRun }: { dryRun: boolean }): Promise<Rebuild> => {
  const { db } = env.catalog
  const storage = await openStorageRow(env, row)
  const rebuild: Rebuild = { recorded: [], known: 0, troubles: [], incomplete: 0, foreign: 0, warnings: [] }
  try {
    const listing = await listRepository(storage, env.signal)
    // After the listing: whatever a daemon has made of it is on record by then.
    const { here, elsewhere } = await readKnown(env, row)
    const sources = new Map((await listSources(db)).map(({ name, id }) => [name, id]))
    await search({ env, row, storage, dryRun, schedules: await listSchedules(db), sources, elsewhere, now: await catalogTime(db), rebuild }, listing, here)
    if (!dryRun) await conclude(env, row, rebuild, rebuild.troubles.length === 0 ? 'success' : 'warning')
    return rebuild
  } catch (error) {
    if (!dryRun) {
      await conclude(env, row, rebuild, 'failure', { code: error instanceof BackupdError ? error.code : 'internal' })
        .catch((secondary: unknown) => env.log.warn({ error: catalogReason(secondary) }, 'the end of the rebuild is not on record'))
    }
    throw error
  } finally {
    await storage.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
  }
}
