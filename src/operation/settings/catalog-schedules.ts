import { createHash } from 'node:crypto'
import { exclusively } from '../../catalog/exclusive.js'
import { activeKeys } from '../../catalog/keys.js'
import { notifyWork } from '../../catalog/notifications.js'
import { insertSchedule, isManaged, listSchedules, MANAGER } from '../../catalog/schedules.js'
import { listStorages, type StorageRow } from '../../catalog/storages.js'
import { catalogTime, recorded } from './configure.js'
import { nextRun } from './cron.js'
import type { Environment } from '../environment.js'

/** Once a day in a quiet hour, at a minute of the storage's own, so that not all are written to at one time. */
const cronOf = (storage: StorageRow): string => `${createHash('sha256').update(`catalog ${storage.id}`).digest().readUInt32BE() % 60} 3 * * *`

/** `catalog-STORAGE`, or with a number where somebody has named a schedule of their own so. */
const freeName = (storage: StorageRow, taken: ReadonlySet<string>): string => {
  const name = `catalog-${storage.name}`
  for (let number = 2; taken.has(name); number += 1) if (!taken.has(`${name}-${number}`)) return `${name}-${number}`
  return name
}

const withoutSchedule = async ({ catalog }: Environment): Promise<StorageRow[]> => {
  const served = new Set((await listSchedules(catalog.db)).filter(isManaged).map(({ storage_backend_id: id }) => id))
  return (await listStorages(catalog.db)).filter((storage) => storage.is_active && !served.has(storage.id))
}

const create = (env: Environment, storage: StorageRow, name: string): Promise<void> =>
  recorded(env, { event: 'schedule.created', action: 'create', type: 'schedule', name }, async (tx) => {
    const cron = cronOf(storage)
    const row = await insertSchedule(tx, {
      name, cron_expression: cron, timezone: 'UTC', backup_type: 'database_only', compression_type: 'zstd', encrypt_backup: true, verify_integrity: true,
      retention_days: 30, storage_backend_id: storage.id, managed_by: MANAGER, next_run_at: nextRun(cron, 'UTC', await catalogTime(tx)),
      description: 'Backs up the catalog of backupd itself; kept by the daemon.',
    })
    await notifyWork(tx, { kind: 'schedule', id: row.id })
    env.log.info({ schedule: name, storage: storage.name, next: row.next_run_at }, 'the catalog is backed up to this storage daily')
    return { result: undefined, id: row.id, after: row }
  })

/**
 * Sees to it that each storage that is switched on has a schedule that backs up the catalog to it, made once however many daemons there
 * are. One that is there stays as it is, also when it was switched off. Nothing is done before there is a key: a catalog is not stored
 * unencrypted.
 */
export const keepCatalogSchedules = async (env: Environment): Promise<void> => {
  if (!env.config.catalogBackup || (await withoutSchedule(env)).length === 0) return
  if ((await activeKeys(env.catalog.db)).length === 0) return env.log.debug('the catalog is not backed up: there is no key to encrypt to')
  await exclusively(env.catalog.url, 'catalog schedules', async () => {
    // Another daemon may have made some meanwhile.
    for (const storage of await withoutSchedule(env)) {
      await create(env, storage, freeName(storage, new Set((await listSchedules(env.catalog.db)).map(({ name }) => name))))
    }
  })
}
