import { and, asc, count, eq, not, or, sql } from './drizzle.js'
import type { Db } from './connect.js'
import { insertNamed, onlyOne } from './names.js'
import { given } from './policies.js'
import { backupCleanupHistory, backupExecutions, backupRetentionPolicies, backupSchedules, storageBackendConfigs } from './schema.js'

export type StorageRow = typeof storageBackendConfigs.$inferSelect
export type NewStorage = typeof storageBackendConfigs.$inferInsert

/** All storages, by name. */
export const listStorages = (db: Db): Promise<StorageRow[]> =>
  db.select().from(storageBackendConfigs).orderBy(asc(storageBackendConfigs.name), asc(storageBackendConfigs.id))

/** The storage of exactly this name. Fails with `catalog.ambiguous`. */
export const findStorage = async (db: Db, name: string): Promise<StorageRow | undefined> =>
  onlyOne(await db.select().from(storageBackendConfigs).where(eq(storageBackendConfigs.name, name)), 'storage', name)

export const storageById = async (db: Db, id: number): Promise<StorageRow | undefined> =>
  (await db.select().from(storageBackendConfigs).where(eq(storageBackendConfigs.id, id)))[0]

/** Fails with `storage.exists`. Secrets in `config_data` must be sealed before. */
export const insertStorage = (db: Db, storage: NewStorage): Promise<StorageRow> =>
  insertNamed(db, 'storage', storage.name, (tx) => findStorage(tx, storage.name),
    (tx) => tx.insert(storageBackendConfigs).values(storage).returning())

/** The changed row, or undefined when there is none. */
export const updateStorage = async (db: Db, id: number, set: Partial<NewStorage>): Promise<StorageRow | undefined> =>
  (await db.update(storageBackendConfigs).set({ ...set, updated_at: sql`now()` }).where(eq(storageBackendConfigs.id, id)).returning())[0]

export const setStorageActive = (db: Db, id: number, active: boolean): Promise<StorageRow | undefined> =>
  updateStorage(db, id, { is_active: active })

/** Notes the result of a check of the storage, now. The message is cut to the column's 500 characters. */
export const recordStorageHealth = async (db: Db, id: number, healthy: boolean, message: string): Promise<void> => {
  await db.update(storageBackendConfigs)
    .set({ is_healthy: healthy, health_check_message: message.slice(0, 500), last_health_check: sql`now()`, updated_at: sql`now()` })
    .where(eq(storageBackendConfigs.id, id))
}

/** Sets number and stored bytes of the backups in a storage from the executions: true also after a crash or a removal. */
export const refreshStorageTotals = async (db: Db, id: number): Promise<void> => {
  const good = sql`FROM backup_executions WHERE storage_backend_id = ${id} AND status IN ('completed', 'verifying', 'verified') AND expiring_at IS NULL`
  await db.update(storageBackendConfigs)
    .set({
      total_backups: sql`(SELECT count(*) ${good})`,
      total_size_bytes: sql`(SELECT coalesce(sum(compressed_size_bytes), 0) ${good})`,
      updated_at: sql`now()`,
    })
    .where(eq(storageBackendConfigs.id, id))
}

export interface StorageUses {
  /** Schedules that write or copy to it. */
  schedules: Pick<typeof backupSchedules.$inferSelect, 'id' | 'name' | 'managed_by'>[]
  /** Names of retention policies. */
  policies: string[]
  executions: number
  cleanups: number
}

/** What refers to a storage. With any of it but cleanups, removing fails. */
export const usesOfStorage = async (db: Db, id: number): Promise<StorageUses> => {
  const schedules = await db.select({ id: backupSchedules.id, name: backupSchedules.name, managed_by: backupSchedules.managed_by }).from(backupSchedules)
    .where(or(eq(backupSchedules.storage_backend_id, id), eq(backupSchedules.copy_to, id))).orderBy(asc(backupSchedules.name))
  const policies = await db.select({ name: backupRetentionPolicies.name }).from(backupRetentionPolicies)
    .where(and(eq(backupRetentionPolicies.storage_backend_id, id), given)).orderBy(asc(backupRetentionPolicies.name))
  const [executions] = await db.select({ n: count() }).from(backupExecutions).where(eq(backupExecutions.storage_backend_id, id))
  const [cleanups] = await db.select({ n: count() }).from(backupCleanupHistory).where(eq(backupCleanupHistory.storage_backend_id, id))
  return {
    schedules,
    policies: policies.map(({ name }) => name),
    executions: executions?.n ?? 0,
    cleanups: cleanups?.n ?? 0,
  }
}

/** Removes a storage that nothing refers to but the history of its cleanups, which goes with it; what they deleted stays in the audit trail. */
export const removeStorage = (db: Db, id: number): Promise<StorageRow | undefined> =>
  db.transaction(async (tx) => {
    await tx.delete(backupCleanupHistory).where(eq(backupCleanupHistory.storage_backend_id, id))
    await tx.delete(backupRetentionPolicies).where(and(eq(backupRetentionPolicies.storage_backend_id, id), not(given)))
    return (await tx.delete(storageBackendConfigs).where(eq(storageBackendConfigs.id, id)).returning())[0]
  })
