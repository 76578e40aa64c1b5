import { drizzle, type PostgresJsDatabase, type PgDatabase, type PostgresJsQueryResultHKT } from './drizzle.js'
import { throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import { embeddedThere, startEmbedded } from '../postgres/embedded.js'
import type { Secret } from '../secret.js'
import { connectTo, describeUrl, type Sql } from './client.js'
import { migrate, migrationStatus, needCurrent, notMigrated } from './migrate.js'

/** A drizzle database or a transaction of it: what every function of the table modules takes. */
export type Db = PgDatabase<PostgresJsQueryResultHKT, Record<string, never>>

export interface Catalog {
  db: PostgresJsDatabase<Record<string, never>>
  /** For plain SQL, `LISTEN` and cursors. A pool apart from `db`'s, because drizzle changes how its own reads and writes dates and JSON. */
  sql: Sql
  /** For programs such as pg_dump. */
  url: Secret
  /** Where it is, without anything secret. */
  description: string
  embedded: boolean
  /** Ends the connections, and the embedded server when nobody else uses it. */
  close(): Promise<void>
}

export interface CatalogOptions {
  /** Undefined: the embedded server under `stateDir`. */
  databaseUrl: Secret | undefined
  stateDir: string
  log: Log
  signal: AbortSignal
  /** Default true. */
  migrate?: boolean
}

// Enough for the scheduler, a few running operations and their lease renewals; many daemons share one server.
const poolSize = 5

/**
 * Opens the catalog, migrated. Fails with `catalog.*` (exit code 4); `catalog.unreachable` is retryable. The embedded server is
 * started when it does not run.
 */
export const openCatalog = async ({ databaseUrl, stateDir, log, signal, migrate: wanted = true }: CatalogOptions): Promise<Catalog> => {
  throwIfAborted(signal)
  const embedded = databaseUrl === undefined ? await startEmbedded({ stateDir, log, signal }) : undefined
  const url = databaseUrl ?? embedded?.url
  if (url === undefined) throw new Error('no catalog')
  try {
    if (wanted) await migrate(url, { signal, log })
  } catch (error) {
    await embedded?.close()
    throw error
  }
  const pool = connectTo(url, poolSize)
  const sql = connectTo(url, 2)
  return {
    db: drizzle(pool),
    sql,
    url,
    description: embedded?.description ?? describeUrl(url),
    embedded: embedded !== undefined,
    close: async () => {
      await Promise.all([pool.end({ timeout: 5 }), sql.end({ timeout: 5 })])
      await embedded?.close()
    },
  }
}

/**
 * Opens the catalog without changing or making anything, for a look at it. Fails like `openCatalog`, and with `catalog.not_migrated`
 * where that would have had something to make or to migrate.
 */
export const openPresentCatalog = async (options: Omit<CatalogOptions, 'migrate'>): Promise<Catalog> => {
  if (options.databaseUrl === undefined && !(await embeddedThere(options.stateDir))) throw notMigrated(`embedded in ${options.stateDir}`, [])
  const catalog = await openCatalog({ ...options, migrate: false })
  try {
    needCurrent(await migrationStatus(catalog.url), catalog.description)
    return catalog
  } catch (error) {
    await catalog.close()
    throw error
  }
}
