import { statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { listExecutions } from '../catalog/executions.js'
import { goodExecutionStatuses } from '../catalog/statuses.js'
import { throwIfAborted } from '../errors.js'
import { findingOf, within, type Check, type Finding, type HealthContext, type StorageTarget } from './check.js'

const MiB = 1024 * 1024
/** Below this the state directory's catalog and logs may stop. */
const little = 1024 * MiB
const tooLittle = 100 * MiB

const shown = (bytes: number): string => (bytes < 1024 * MiB ? `${Math.floor(bytes / MiB)} MiB` : `${(bytes / 1024 / MiB).toFixed(1)} GiB`)

const freeAt = async (path: string): Promise<number> => {
  try {
    const { bavail, bsize } = await statfs(path)
    return bavail * bsize
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || dirname(path) === path) throw error
    return freeAt(dirname(path))
  }
}

const judgeState = async (stateDir: string): Promise<Finding> => {
  const free = await freeAt(stateDir)
  const level = free < tooLittle ? 'critical' : free < little ? 'warning' : 'healthy'
  return { subject: 'disk of the state directory', level, message: `${shown(free)} free`, ...(level === 'healthy' ? {} : { advice: 'Free some space there.' }) }
}

/** Free space against the newest backup there: what the next one will take, about. */
const judgeStorage = async (context: HealthContext, { row, open }: StorageTarget): Promise<Finding[]> => {
  const subject = `disk of storage ${row.name}`
  try {
    const storage = await open()
    try {
      const free = await within(context, 20, async (signal) => storage.freeSpace?.({ signal }))
      if (free === undefined) return []
      const { db } = await context.catalog()
      const [newest] = await listExecutions(db, { storage: row.id, status: goodExecutionStatuses, limit: 1 })
      const need = newest?.compressed_size_bytes ?? 0
      const level = free < Math.max(need, tooLittle) ? 'critical' : free < 3 * need ? 'warning' : 'healthy'
      const last = need === 0 ? '' : `; the newest backup took ${shown(need)}`
      return [{ subject, level, message: `${shown(free)} free${last}`, ...(level === 'healthy' ? {} : { advice: 'Free some space, or keep fewer backups.' }) }]
    } finally {
      await storage.close()
    }
  } catch (error) {
    throwIfAborted(context.signal)
    return [findingOf(subject, error, 'warning')]
  }
}

/** There is room for the catalog and for the next backups, where that can be told. */
export const diskCheck: Check = {
  name: 'disk',
  needsCatalog: false,
  run: async (context) => {
    const targets = await context.storages().catch(() => [])
    const storages = await Promise.all(targets.filter(({ row }) => row.backend_type === 'local').map((target) => judgeStorage(context, target)))
    return [await judgeState(context.config.stateDir), ...storages.flat()]
  },
}
