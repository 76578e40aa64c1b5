import { sql } from 'drizzle-orm'
import { openCatalog } from '../catalog/connect.js'
import type { Execution } from '../catalog/executions.js'
import { findStorage, type StorageRow } from '../catalog/storages.js'
import { BackupdError, messageOf } from '../errors.js'
import { parseConnection } from '../postgres/connection.js'
import { Secret } from '../secret.js'
import { settleRestored, type Settled } from './catalog-settle.js'
import type { Environment } from './environment.js'
import { rebuildCatalog } from './rebuild.js'
import { recordRestore, runRecovery } from './recovery.js'
import { needBackup, needExecution } from './request.js'
import { planRestore } from './restore-plan.js'
import { CATALOG_SOURCE, openStorageRow } from './sources.js'

/** A catalog that was brought back. */
export interface RestoredCatalog {
  backup_id: string
  started_at: Date
  tables: number
  rows: number
  settled: Settled
  /** Backups in the storage that the restored catalog did not know. */
  found: number
  warnings: string[]
}

const newest = async (env: Environment, storage: StorageRow): Promise<Execution> => {
  const [row] = await env.catalog.db.execute<{ id: number }>(sql`
    SELECT id FROM backup_executions
    WHERE storage_backend_id = ${storage.id} AND status IN ('completed', 'verified') AND expiring_at IS NULL
      AND backup_config ->> 'source' = ${CATALOG_SOURCE} AND backup_config ->> 'schedule' LIKE 'catalog-%'
    ORDER BY started_at DESC LIMIT 1`)
  if (row !== undefined) return needExecution(env, String(row.id))
  throw new BackupdError('catalog.no_backup', `there is no backup of a catalog in the storage "${storage.name}"`, {
    kind: 'notFound', hint: 'Try the other storages. "backupd catalog rebuild" finds the backups of your databases without one.',
  })
}

/** Restores into a new database, and gives how much. */
const bringBack = async (env: Environment, storage: StorageRow, execution: Execution, url: string): Promise<{ tables: number; rows: number }> => {
  const opened = await openStorageRow(env, storage)
  try {
    const plan = await planRestore(env, execution, opened, {
      target: { to: parseConnection(url) }, overwrite: false, tables: [], schemaOnly: false, jobs: 1, noOwner: true, globals: false,
    })
    if (!plan.contents.tables.some(({ name }) => name === 'backupd_migrations')) {
      throw new BackupdError('catalog.no_backup', `backup ${execution.backup_id} is not one of a catalog`, { kind: 'usage', hint: 'Leave out --backup for the newest one.' })
    }
    const { id } = await recordRestore(env, plan, 'here')
    return (await runRecovery(env, id, plan)).validation
  } finally {
    await opened.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
  }
}

/**
 * Restores the newest backup of a catalog from a storage into a new database, ends what was live in it, and finds the backups that are
 * newer. The present catalog stays as it is, but for the record of what the storage holds. Fails with `catalog.no_backup`,
 * `restore.target_exists`, `key.*` or `storage.*`.
 */
export const restoreCatalog = async (env: Environment, storage: StorageRow, { url, backup }: { url: string; backup?: string | undefined }): Promise<RestoredCatalog> => {
  await rebuildCatalog(env, storage, { dryRun: false })
  const execution = needBackup(backup === undefined ? await newest(env, storage) : await needExecution(env, backup))
  const { tables, rows } = await bringBack(env, storage, execution, url)
  const catalog = await openCatalog({ databaseUrl: new Secret(url), stateDir: env.config.stateDir, log: env.log, signal: env.signal })
  try {
    const restored: Environment = { ...env, catalog }
    const settled = await settleRestored(restored, { backupId: execution.backup_id, storage: storage.name })
    const warnings: string[] = []
    const again = async (): Promise<number> => {
      const row = await findStorage(catalog.db, storage.name)
      if (row === undefined) throw new BackupdError('storage.unknown', `the restored catalog has no storage named "${storage.name}"`, { kind: 'notFound' })
      const { recorded, troubles } = await rebuildCatalog(restored, row, { dryRun: false })
      if (troubles.length > 0) warnings.push(`${troubles.length} folders of ${storage.name} hold no good backup: see "backupd catalog rebuild"`)
      return recorded.length
    }
    const found = await again().catch((error: unknown) => {
      // The catalog is there and settled; what fails here, such as a secret sealed under the old key, can be put right and done again.
      warnings.push(`backups that are newer than the restored catalog were not looked for: ${messageOf(error)}. Put that right, and run "backupd catalog rebuild --storage ${storage.name}" with it`)
      return 0
    })
    return { backup_id: execution.backup_id, started_at: execution.started_at, tables, rows, settled, found, warnings }
  } finally {
    await catalog.close()
  }
}
