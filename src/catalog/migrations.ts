import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** Next to src/ and to dist/ alike, and part of the package. */
export const migrationsFolder = fileURLToPath(new URL('../../drizzle', import.meta.url))

export interface Migration {
  /** The file's name without `.sql`. */
  tag: string
  /** Milliseconds; what tells migrations apart in drizzle's journal and in the table of those applied. */
  when: number
  statements: readonly string[]
  /** What takes back what the snapshots do not know of, such as triggers; tables and columns go by the snapshots. */
  down: string | undefined
}

/** What of a database's shape a snapshot of drizzle-kit says that we need. */
export interface Snapshot {
  tables: Record<string, { name: string; columns: Record<string, unknown> }>
}

const read = (file: string): string => readFileSync(`${migrationsFolder}/${file}`, 'utf8')

/** All migrations that this program knows, oldest first, from drizzle-kit's folder. */
export const knownMigrations = (): Migration[] => {
  const { entries } = JSON.parse(read('meta/_journal.json')) as { entries: { tag: string; when: number }[] }
  return entries.map(({ tag, when }) => ({
    tag,
    when,
    statements: read(`${tag}.sql`).split('--> statement-breakpoint'),
    down: existsSync(`${migrationsFolder}/${tag}.down.sql`) ? read(`${tag}.down.sql`) : undefined,
  }))
}

/** The shape after the `index`-th migration, as drizzle-kit keeps it. */
export const snapshotAfter = (index: number): Snapshot =>
  index < 0 ? { tables: {} } : (JSON.parse(read(`meta/${String(index).padStart(4, '0')}_snapshot.json`)) as Snapshot)

/** Tables that exist after the `index`-th migration and did not before it. */
export const tablesAddedBy = (index: number): string[] => {
  const before = new Set(Object.keys(snapshotAfter(index - 1).tables))
  return Object.entries(snapshotAfter(index).tables).filter(([key]) => !before.has(key)).map(([, { name }]) => name)
}

/** Columns, by table, that the `index`-th migration added to tables that existed before it. */
export const columnsAddedBy = (index: number): { table: string; columns: string[] }[] => {
  const before = snapshotAfter(index - 1).tables
  return Object.entries(snapshotAfter(index).tables).flatMap(([key, { name, columns }]) => {
    const old = before[key]
    const added = old === undefined ? [] : Object.keys(columns).filter((column) => !(column in old.columns))
    return added.length === 0 ? [] : [{ table: name, columns: added }]
  })
}
