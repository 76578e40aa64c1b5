import { writeAudit } from '../audit/audit.js'
import { openCatalog, type Db } from '../catalog/connect.js'
import type { Execution } from '../catalog/executions.js'
import { catalogTables } from '../catalog/own-tables.js'
import { contentOf, settleRestored, type Settled } from '../catalog/settle.js'
import { listSources } from '../catalog/sources.js'
import { findStorage, insertStorage, listStorages, updateStorage, type StorageRow } from '../catalog/storages.js'
import { liveWorkers } from '../catalog/workers.js'
import { BackupdError, messageOf } from '../errors.js'
import { describeConnection, parseConnection } from '../postgres/connection.js'
import { exactly } from '../postgres/patterns.js'
import { parseBackupId } from '../repository/keys.js'
import { listRepository } from '../repository/scan.js'
import type { Storage } from '../storage/storage.js'
import { catalogTime } from './settings/configure.js'
import type { Environment } from './environment.js'
import { foundRow, readFound, type FoundBackup } from './found-backup.js'
import { createTracker } from './progress.js'
import { rebuildCatalog, type Rebuild } from './rebuild.js'
import { restore } from './restore.js'
import { planRestore } from './restore-plan.js'
import { CATALOG_SOURCE, connectionOf, openStorageRow, storageConfigOf } from './sources.js'

export interface CatalogRestore {
  backupId: string
  madeAt: string
  settled: Settled
  /** Sources and storages whose secrets this machine's secret key does not open, and why. */
  sealed: { name: string; reason: string }[]
  /** What was found in the storage besides. */
  rebuild: Rebuild
}

const notEmpty = (content: { what: string; count: number }[]): BackupdError =>
  new BackupdError('catalog.not_empty', `the catalog is in use: it holds ${content.map(({ what, count }) => `${count} ${what}`).join(', ')}`, {
    kind: 'configuration', hint: 'Restore into an empty catalog, or say --replace: all of its content is replaced.', details: { content },
  })

const refuseDaemons = async ({ catalog }: Environment): Promise<void> => {
  const daemons = await liveWorkers(catalog.db, 'daemon')
  if (daemons.length === 0) return
  throw new BackupdError('catalog.daemons', `a daemon works with this catalog: ${daemons.map(({ host, pid }) => `${host}, process ${pid}`).join('; ')}`, {
    kind: 'configuration', hint: 'Stop it first; one that was killed is forgotten after 30 seconds.',
  })
}

const isOfCatalog = ({ manifest }: FoundBackup): boolean => manifest.source === CATALOG_SOURCE && manifest.schedule?.startsWith('catalog-') === true

/** The newest whole backup of a catalog in the storage, or the one of that name. Fails with `catalog.no_backup` (exit code 3). */
const findBackup = async (env: Environment, storage: Storage, wanted: string | undefined): Promise<FoundBackup> => {
  const { folders } = await listRepository(storage, env.signal)
  const named = folders.filter(({ folder, manifest }) => manifest !== undefined && (wanted === undefined ? folder.includes('-catalog-') && parseBackupId(folder) !== undefined : folder === wanted))
  for (const listed of named.reverse()) {
    const found = await readFound(storage, listed, env.signal).catch((error: unknown) => {
      if (wanted !== undefined || env.signal.aborted) throw error
      env.log.warn({ folder: listed.folder, error: messageOf(error) }, 'passed over')
      return undefined
    })
    if (found !== undefined && isOfCatalog(found) && found.damage.length === 0) return found
  }
  throw new BackupdError('catalog.no_backup', wanted === undefined ? 'the storage holds no backup of a catalog' : `${wanted} is no whole backup of a catalog in this storage`, {
    kind: 'notFound', hint: '"backupd catalog rebuild" finds all other backups.',
  })
}

/** The backup's tables in place of the catalog's own: dropped and made again in one transaction, so that a failure changes nothing. */
const bringBack = async (env: Environment, row: StorageRow, storage: Storage, found: FoundBackup): Promise<void> => {
  const belonging = { storage: row, location: storage.location(found.folder), schedule: null, source: null, namesake: undefined, now: await catalogTime(env.catalog.db) }
  const execution = { id: 0, expiring_at: null, ...foundRow(found, belonging) } as unknown as Execution
  const plan = await planRestore(env, execution, storage, {
    target: { to: parseConnection(env.catalog.url.reveal()) }, overwrite: true, tables: (await catalogTables(env.catalog.sql)).map(exactly), schemaOnly: false, jobs: 1, noOwner: true, globals: false,
  })
  const tracker = createTracker((warning) => env.log.warn(warning))
  const { passed, differences } = await restore({
    plan, tracker, log: env.log, signal: env.signal, stallTimeout: env.config.stallTimeout, enter: (stage) => {
      env.log.info({ stage, target: describeConnection(plan.target) }, 'restoring the catalog')
      return Promise.resolve()
    },
  })
  if (!passed) env.log.warn({ differences }, 'the restored catalog is not quite what was backed up')
}

/** What is named on this machine is what works on this machine, whatever the backup says of it. */
const keepStorage = async (db: Db, { name, backend_type, config_data }: StorageRow): Promise<StorageRow> => {
  const restored = await findStorage(db, name)
  const kept = restored === undefined ? await insertStorage(db, { name, backend_type, config_data })
    : await updateStorage(db, restored.id, { backend_type, config_data, is_active: true })
  if (kept === undefined) throw new Error('the storage is gone')
  return kept
}

const unopened = async (env: Environment): Promise<CatalogRestore['sealed']> => {
  const { db } = env.catalog
  const attempts = [
    ...(await listSources(db)).map((row) => ({ name: `source ${row.name}`, open: async (): Promise<unknown> => connectionOf(env, row) })),
    ...(await listStorages(db)).map((row) => ({ name: `storage ${row.name}`, open: async (): Promise<unknown> => storageConfigOf(env, row) })),
  ]
  const failed: CatalogRestore['sealed'] = []
  for (const { name, open } of attempts) await open().catch((error: unknown) => failed.push({ name, reason: messageOf(error) }))
  return failed
}

/**
 * Brings back the catalog from the newest backup of it in a storage (or the one named), settles what was under way in it, and finds what
 * the storage holds besides. The catalog has to be empty, but for the storage, unless `replace` is said; until the rows are there, nothing
 * of it is changed. Fails with `catalog.not_empty`, `catalog.daemons` (exit code 4), `catalog.no_backup` (3), or as a restore does.
 */
export const restoreCatalog = async (env: Environment, row: StorageRow, { backup, replace }: { backup: string | undefined; replace: boolean }): Promise<CatalogRestore> => {
  await refuseDaemons(env)
  const content = await contentOf(env.catalog.db)
  if (content.length > 0 && !replace) throw notEmpty(content)
  const storage = await openStorageRow(env, row)
  let found: FoundBackup
  try {
    found = await findBackup(env, storage, backup)
    await bringBack(env, row, storage, found)
  } finally {
    await storage.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
  }
  // Opened anew: the restored tables may be those of an older version, and have to be migrated.
  const catalog = await openCatalog({ databaseUrl: env.config.databaseUrl, stateDir: env.config.stateDir, log: env.log, signal: env.signal })
  try {
    const within: Environment = { ...env, catalog }
    const { settled, kept } = await catalog.db.transaction(async (tx) => {
      const { forgotten, ...rest } = await settleRestored(tx)
      // The backup that was restored was itself under way while it was made; the rebuild puts it on record.
      const ended: Settled = { ...rest, forgotten: forgotten.filter((id) => id !== found.folder) }
      const named = await keepStorage(tx, row)
      await writeAudit(tx, {
        event_type: 'catalog.restored', event_category: 'recovery', action: 'execute', actor: env.actor, risk_level: 'high',
        resource: { type: 'storage', id: named.id, name: named.name }, event_data: { backup_id: found.folder, made_at: found.manifest.started_at, ...ended, replaced: content },
      })
      return { settled: ended, kept: named }
    })
    return { backupId: found.folder, madeAt: found.manifest.started_at, settled, sealed: await unopened(within), rebuild: await rebuildCatalog(within, kept, { dryRun: false }) }
  } finally {
    await catalog.close()
  }
}
