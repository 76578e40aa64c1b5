import type { Sql } from './client.js'
import { appliedMigrations } from './migrate.js'
import { knownMigrations, tablesAddedBy } from './migrations.js'

/** Tables of the other application that foreign keys of the shared tables point at. */
const foreign = ['users', 'projects']

/**
 * The tables that make up the catalog, without what else is in its database. Those that are only pointed at are among them where
 * backupd made them.
 */
export const catalogTables = async (sql: Sql): Promise<{ schema: string; name: string }[]> => {
  const [row] = await sql<{ schema: string }[]>`SELECT current_schema() AS schema`
  const adopted = new Set((await appliedMigrations(sql)).flatMap((migration) => migration.adopted))
  const known = knownMigrations().flatMap((_, index) => tablesAddedBy(index)).filter((name) => !foreign.includes(name) || !adopted.has(name))
  return [...known, 'backupd_migrations'].sort().map((name) => ({ schema: row?.schema ?? 'public', name }))
}
