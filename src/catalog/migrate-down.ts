import { createWriteStream } from 'node:fs'
import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type postgres from 'postgres'
import { BackupdError, asBackupdError, throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import type { Secret } from '../secret.js'
import type { Sql } from './client.js'
import { appliedMigrations, takeMigrationLock, withOneConnection } from './migrate.js'
import { columnsAddedBy, knownMigrations, tablesAddedBy } from './migrations.js'

type Tx = postgres.TransactionSql<{ bigint: number }>

export interface DownResult {
  /** Tags of the migrations taken back, newest first. */
  reverted: string[]
  /** Files with what was dropped, one JSON object a line. */
  files: string[]
}

const rowsOf = async function* (tx: Tx, query: string): AsyncGenerator<string> {
  for await (const rows of tx.unsafe<{ line: string }[]>(query).cursor(500)) for (const { line } of rows) yield `${line}\n`
}

// An empty table leaves an empty file: it says that there was nothing.
const exportRows = async (tx: Tx, path: string, query: string, signal: AbortSignal): Promise<void> => {
  await pipeline(Readable.from(rowsOf(tx, query)), createWriteStream(path, { flags: 'wx', mode: 0o600 }), { signal })
  const file = await open(path, 'r+')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

const revert = async (tx: Tx, index: number, tag: string, folder: string, signal: AbortSignal): Promise<string[]> => {
  const files: string[] = []
  const quoted = (name: string): string => `"${name}"`
  const columns = columnsAddedBy(index)
  const tables = tablesAddedBy(index)
  const touched = [...columns.map(({ table }) => table), ...tables]
  // So that nothing is written between the export and the drop.
  if (touched.length > 0) await tx.unsafe(`LOCK TABLE ${touched.map(quoted).join(', ')} IN ACCESS EXCLUSIVE MODE`)
  for (const { table, columns: names } of columns) {
    const path = join(folder, `${table}.columns-of-${tag}.jsonl`)
    const list = names.map(quoted).join(', ')
    await exportRows(tx, path, `SELECT row_to_json(r)::text AS line FROM (SELECT id, ${list} FROM ${quoted(table)}
      WHERE num_nonnulls(${list}) > 0 ORDER BY id) r`, signal)
    files.push(path)
  }
  for (const table of tables) {
    const path = join(folder, `${table}.jsonl`)
    await exportRows(tx, path, `SELECT row_to_json(r)::text AS line FROM (SELECT * FROM ${quoted(table)} ORDER BY id) r`, signal)
    files.push(path)
  }
  for (const { table, columns: names } of columns) {
    await tx.unsafe(`ALTER TABLE ${quoted(table)} ${names.map((name) => `DROP COLUMN ${quoted(name)}`).join(', ')}`)
  }
  // In one statement, because they refer to each other; without CASCADE, because what else refers to them is not ours to drop.
  if (tables.length > 0) await tx.unsafe(`DROP TABLE ${tables.map(quoted).join(', ')}`)
  return files
}

/**
 * Takes back migrations until `to` are left, newest first, after writing what is lost with them to new files (mode 0600) in `folder`.
 * All or nothing. Refuses with `catalog.adopted` where that would drop tables of the other application, `catalog.newer_schema` where it
 * does not know how, and `catalog.export` when the files cannot be written, as when they are there already.
 */
export const migrateDown = (
  url: Secret, to: number, folder: string, { signal, log }: { signal: AbortSignal; log: Log },
): Promise<DownResult> =>
  withOneConnection(url, async (sql: Sql, where) => {
    await takeMigrationLock(sql, signal)
    const applied = await appliedMigrations(sql)
    const known = knownMigrations()
    const undone = applied.slice(to).reverse()
    for (const { tag, when, adopted } of undone) {
      if (!known.some((one) => one.when === when)) {
        throw new BackupdError('catalog.newer_schema', `the catalog ${where} was migrated by a newer backupd (${tag})`, {
          kind: 'configuration', hint: 'Run `backupd migrate down` of that version.',
        })
      }
      if (adopted.length > 0) {
        throw new BackupdError('catalog.adopted', `${tag} found these tables of another application in the catalog and will not drop them: ${adopted.join(', ')}`, {
          kind: 'configuration', hint: `Go down to ${known.findIndex((one) => one.when === when) + 1} at most.`, details: { adopted },
        })
      }
    }
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const files = await sql.begin(async (tx) => {
      const written: string[] = []
      for (const { tag, when } of undone) {
        throwIfAborted(signal)
        written.push(...(await revert(tx, known.findIndex((one) => one.when === when), tag, folder, signal).catch((error: unknown) => {
          const { code } = error as NodeJS.ErrnoException
          throw code === 'EEXIST' || code === 'EACCES' || code === 'ENOSPC' || code === 'EROFS'
            ? asBackupdError(error, 'catalog.export', `what would be lost could not be written to ${folder}`, {
              kind: 'configuration', hint: 'Name an empty folder with room in --export.',
            })
            : error
        })))
        await tx`DELETE FROM backupd_migrations WHERE created_at = ${when}`
      }
      return written
    })
    for (const { tag } of undone) log.warn({ migration: tag, folder }, 'catalog migration taken back')
    return { reverted: undone.map(({ tag }) => tag), files }
  })
