import { setTimeout as sleep } from 'node:timers/promises'
import { BackupdError, abortError, throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import type { Secret } from '../secret.js'
import { connectTo, describeUrl, type Sql } from './client.js'
import { catalogFailure } from './failures.js'
import { columnsAddedBy, knownMigrations, tablesAddedBy, type Migration } from './migrations.js'

/** Any number, the same in every version: whoever migrates holds this advisory lock. */
const lockKey = 0x6261636b

export interface AppliedMigration {
  tag: string
  /** Milliseconds, as in the journal. */
  when: number
  appliedAt: Date
  /** Tables that the database held before, and columns (`table.column`). */
  adopted: string[]
}

export interface MigrationStatus {
  applied: AppliedMigration[]
  /** Tags of what this program would apply, oldest first. */
  pending: string[]
  /** Whether tables of the other application were there first. */
  adopted: boolean
  /** Tags of migrations that only a newer program knows. */
  unknown: string[]
}

// The first three columns are those of drizzle-kit's own migrator, so that it can be pointed at this table too.
const createTable = `
  CREATE TABLE IF NOT EXISTS backupd_migrations (
    id serial PRIMARY KEY, hash text NOT NULL, created_at bigint,
    applied_at timestamptz NOT NULL DEFAULT now(), adopted text NOT NULL DEFAULT '[]')`

const tableThere = async (sql: Sql, table: string): Promise<boolean> => {
  const [row] = await sql<{ there: boolean }[]>`
    SELECT to_regclass(quote_ident(current_schema()) || '.' || quote_ident(${table})) IS NOT NULL AS there`
  return row?.there === true
}

const columnThere = async (sql: Sql, table: string, column: string): Promise<boolean> => {
  const [row] = await sql<{ there: boolean }[]>`
    SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(current_schema()) || '.' || quote_ident(${table}))
      AND attname = ${column} AND NOT attisdropped) AS there`
  return row?.there === true
}

/** What was applied, oldest first; nothing where the table is not there yet. */
export const appliedMigrations = async (sql: Sql): Promise<AppliedMigration[]> => {
  if (!(await tableThere(sql, 'backupd_migrations'))) return []
  const rows = await sql<{ hash: string; created_at: number; applied_at: Date; adopted: string }[]>`
    SELECT hash, created_at, applied_at, adopted FROM backupd_migrations ORDER BY created_at`
  const known = new Map(knownMigrations().map(({ when, tag }) => [when, tag]))
  return rows.map(({ hash, created_at, applied_at, adopted }) =>
    ({ tag: known.get(created_at) ?? hash, when: created_at, appliedAt: applied_at, adopted: JSON.parse(adopted) as string[] }))
}

const compare = (applied: AppliedMigration[]): MigrationStatus & { todo: Migration[] } => {
  const known = knownMigrations()
  const done = new Set(applied.map(({ when }) => when))
  const todo = known.filter(({ when }) => !done.has(when))
  return {
    applied,
    todo,
    pending: todo.map(({ tag }) => tag),
    adopted: applied.some(({ adopted }) => adopted.some((name) => !name.includes('.'))),
    unknown: applied.filter(({ when }) => !known.some((one) => one.when === when)).map(({ tag }) => tag),
  }
}

const refuseNewer = ({ unknown }: MigrationStatus, where: string): void => {
  if (unknown.length === 0) return
  throw new BackupdError('catalog.newer_schema', `the catalog ${where} was migrated by a newer backupd (${unknown.join(', ')})`, {
    kind: 'configuration',
    hint: 'Install that version here too; or, with that version, run `backupd migrate down` first.',
    details: { catalog: where, unknown },
  })
}

/** The error for a catalog at `where` that `pending` was not applied to. */
export const notMigrated = (where: string, pending: readonly string[]): BackupdError =>
  new BackupdError('catalog.not_migrated', `the catalog ${where} ${pending.length === 0 ? 'is not there yet' : `is not up to date: ${pending.join(', ')} not applied`}`, {
    kind: 'configuration', hint: 'Run "backupd migrate".', details: { catalog: where, pending: [...pending] },
  })

/** Fails with `catalog.newer_schema` or `catalog.not_migrated` unless the schema is that of this program. */
export const needCurrent = (status: MigrationStatus, where: string): void => {
  refuseNewer(status, where)
  if (status.pending.length > 0) throw notMigrated(where, status.pending)
}

/** Waits for the migration lock of this session. Asked for again and again rather than waited for, so that it can be given up. */
export const takeMigrationLock = async (sql: Sql, signal: AbortSignal): Promise<void> => {
  for (let wait = 20; ; wait = Math.min(wait * 1.5, 500)) {
    throwIfAborted(signal)
    const [row] = await sql<{ taken: boolean }[]>`SELECT pg_try_advisory_lock(${lockKey}) AS taken`
    if (row?.taken === true) return
    await sleep(wait, undefined, { signal }).catch(() => { throw abortError(signal) })
  }
}

const applyOne = async (sql: Sql, migration: Migration, index: number): Promise<string[]> => {
  const adopted: string[] = []
  for (const table of tablesAddedBy(index)) if (await tableThere(sql, table)) adopted.push(table)
  for (const { table, columns } of columnsAddedBy(index)) {
    for (const column of columns) if (await columnThere(sql, table, column)) adopted.push(`${table}.${column}`)
  }
  await sql.begin(async (tx) => {
    for (const statement of migration.statements) await tx.unsafe(statement)
    await tx`
      INSERT INTO backupd_migrations (hash, created_at, adopted) VALUES (${migration.tag}, ${migration.when}, ${JSON.stringify(adopted)})`
  })
  return adopted
}

const applyAll = async (sql: Sql, where: string, signal: AbortSignal, log: Log): Promise<MigrationStatus> => {
  await takeMigrationLock(sql, signal)
  // A role may come with limits that a first migration of a large database would not hold.
  await sql`SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false)`
  const { todo, ...status } = compare(await appliedMigrations(sql))
  refuseNewer(status, where)
  if (todo.length === 0) return status
  await sql.unsafe(createTable)
  const known = knownMigrations()
  for (const migration of todo) {
    throwIfAborted(signal)
    const adopted = await applyOne(sql, migration, known.findIndex(({ when }) => when === migration.when))
    log.info({ migration: migration.tag, adopted }, 'catalog migrated')
  }
  return compare(await appliedMigrations(sql))
}

/** Runs `work` with one connection of its own; what fails comes out as `catalog.*`. */
export const withOneConnection = async <T>(url: Secret, work: (sql: Sql, where: string) => Promise<T>, name = 'backupd migrate'): Promise<T> => {
  const where = describeUrl(url)
  const sql = connectTo(url, 1, { name, idle: 0 })
  try {
    return await work(sql, where)
  } catch (error) {
    throw catalogFailure(error, where)
  } finally {
    await sql.end({ timeout: 5 })
  }
}

/**
 * Brings the catalog at `url` to the schema of this program; any number of processes may do it at once. Tables that are there,
 * with rows or not, are adopted as they are. Fails with `catalog.newer_schema`, `catalog.no_rights`, `catalog.no_database`,
 * `catalog.auth` or `catalog.unreachable` (retryable), all exit code 4.
 */
export const migrate = (url: Secret, { signal, log }: { signal: AbortSignal; log: Log }): Promise<MigrationStatus> =>
  withOneConnection(url, async (sql, where) => {
    const { todo, ...status } = compare(await appliedMigrations(sql))
    refuseNewer(status, where)
    return todo.length === 0 ? status : applyAll(sql, where, signal, log)
  })

/** What was applied and what would be, without changing anything. Fails like `migrate`, but not on a newer schema. */
export const migrationStatus = (url: Secret): Promise<MigrationStatus> =>
  withOneConnection(url, async (sql) => {
    const { todo: _todo, ...status } = compare(await appliedMigrations(sql))
    return status
  })
