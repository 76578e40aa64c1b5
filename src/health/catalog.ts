import { migrationStatus } from '../catalog/migrate.js'
import { throwIfAborted } from '../errors.js'
import { findingOf, within, type Check } from './check.js'

/** The catalog answers, and has the schema of this program. */
export const catalogCheck: Check = {
  name: 'catalog',
  type: 'system',
  scope: 'shared',
  needsCatalog: false,
  run: async (context) => {
    try {
      return await within(context, 90, async () => {
        const catalog = await context.catalog()
        const [row] = await catalog.sql<{ version: string; size: number }[]>`
          SELECT current_setting('server_version') AS version, pg_database_size(current_database())::double precision AS size`
        const { applied, pending } = await migrationStatus(catalog.url)
        const where = `${catalog.description}, PostgreSQL ${row?.version ?? ''}`
        const metrics = { size_bytes: row?.size ?? null, server_version: row?.version ?? null, migration: applied.at(-1)?.tag ?? null, pending_migrations: pending.length }
        if (pending.length > 0) {
          return [{ subject: 'catalog', level: 'critical', message: `${where}: ${pending.join(', ')} not applied`, advice: 'Run "backupd migrate".', metrics }]
        }
        return [{ subject: 'catalog', level: 'healthy', message: `${where}, schema ${applied.at(-1)?.tag ?? 'unknown'}`, metrics }]
      })
    } catch (error) {
      throwIfAborted(context.signal)
      return [findingOf('catalog', error)]
    }
  },
}
