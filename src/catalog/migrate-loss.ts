import { BackupdError } from '../errors.js'
import type { AppliedMigration } from './migrate.js'
import { columnsAddedBy, knownMigrations, tablesAddedBy, type Migration } from './migrations.js'

/** A table, or columns of one, that taking a migration back drops. */
export interface Loss {
  /** Tag of the migration that made it. */
  migration: string
  table: string
  /** Undefined: the whole table. */
  columns?: string[]
  /** Rows of the table; of columns, those in which one of them holds something. */
  rows: number
}

/** A migration to take back, with what goes with it. */
export interface Step extends Migration {
  tables: string[]
  columns: { table: string; columns: string[] }[]
}

/** A name as SQL takes it. */
export const quoted = (name: string): string => `"${name}"`

/** The columns without those that were there before us: they are not ours to drop. */
const ownColumns = (index: number, adopted: readonly string[]): Step['columns'] =>
  columnsAddedBy(index)
    .map(({ table, columns }) => ({ table, columns: columns.filter((column) => !adopted.includes(`${table}.${column}`)) }))
    .filter(({ columns }) => columns.length > 0)

/** What has to be taken back until `to` migrations are left, newest first. Fails with `catalog.newer_schema` and `catalog.adopted`. */
export const stepsDown = (applied: readonly AppliedMigration[], to: number, where: string): Step[] => {
  const known = knownMigrations()
  return applied.slice(to).reverse().map(({ tag, when, adopted }) => {
    const index = known.findIndex((one) => one.when === when)
    const migration = known[index]
    if (migration === undefined) {
      throw new BackupdError('catalog.newer_schema', `the catalog ${where} was migrated by a newer backupd (${tag})`, {
        kind: 'configuration', hint: 'Run `backupd migrate down` of that version.',
      })
    }
    const theirs = adopted.filter((name) => !name.includes('.'))
    if (theirs.length > 0) {
      throw new BackupdError('catalog.adopted', `${tag} found these tables of another application in the catalog and will not drop them: ${theirs.join(', ')}`, {
        kind: 'configuration', hint: `Go down to ${index + 1} at most.`, details: { adopted: theirs },
      })
    }
    return { ...migration, tables: tablesAddedBy(index), columns: ownColumns(index, adopted) }
  })
}

interface Queries {
  unsafe<T extends Record<string, unknown>[]>(query: string): PromiseLike<T>
}

/** What the steps would drop, with the number of rows, in the order in which they would. */
export const lossesOf = async (sql: Queries, steps: readonly Step[]): Promise<Loss[]> => {
  const count = async (text: string): Promise<number> => Number((await sql.unsafe<{ n: number }[]>(`SELECT count(*) AS n FROM ${text}`))[0]?.n ?? 0)
  const losses: Loss[] = []
  for (const { tag, tables, columns } of steps) {
    for (const { table, columns: names } of columns) {
      losses.push({ migration: tag, table, columns: names, rows: await count(`${quoted(table)} WHERE num_nonnulls(${names.map(quoted).join(', ')}) > 0`) })
    }
    for (const table of tables) losses.push({ migration: tag, table, rows: await count(quoted(table)) })
  }
  return losses
}

const rowsText = (rows: number): string => `${rows} ${rows === 1 ? 'row' : 'rows'}`

/** One line for a loss. */
export const lossText = ({ table, columns, rows }: Loss): string =>
  columns === undefined ? `table ${table} (${rowsText(rows)})` : `${columns.length === 1 ? 'column' : 'columns'} ${columns.join(', ')} of ${table} (${rowsText(rows)})`
