import type postgres from 'postgres'
import { BackupdError, throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import type { Secret } from '../secret.js'
import type { Sql } from './client.js'
import { appliedMigrations, takeMigrationLock, withOneConnection } from './migrate.js'
import { discardFiles, exportStep, prepareFolder } from './migrate-export.js'
import { lossesOf, lossText, quoted, stepsDown, type Loss, type Step } from './migrate-loss.js'

type Tx = postgres.TransactionSql<{ bigint: number }>

export interface DownResult {
  /** Tags of the migrations taken back, newest first; in a dry run, of those that would be. */
  reverted: string[]
  /** Files with what was dropped, CSV with a heading. */
  files: string[]
  /** What was dropped with them, or would be. */
  lost: Loss[]
}

/** What becomes of the rows and columns that are dropped: written to a folder first, or given up. Undefined: it is refused when there is anything to take back. */
export type Keeping = { folder: string } | 'discard' | undefined

export interface DownOptions {
  signal: AbortSignal
  log: Log
  keep: Keeping
  /** Says what would be lost, and changes nothing. */
  dryRun?: boolean
}

const refuse = (to: number, steps: readonly Step[], losses: readonly Loss[]): BackupdError =>
  new BackupdError('catalog.down_loses', `taking back ${steps.map(({ tag }) => tag).join(', ')} loses ${losses.length === 0 ? 'no data' : losses.map(lossText).join('; ')}`, {
    kind: 'usage', details: { lost: losses },
    hint: `Say where to write it first, "backupd migrate down --to ${to} --export DIR", or that it is not needed, with --discard-data.`,
  })

// So that nothing is written between the counting, the export and the drop.
const lock = async (tx: Tx, steps: readonly Step[]): Promise<void> => {
  const names = new Set(steps.flatMap(({ tables, columns }) => [...columns.map(({ table }) => table), ...tables]))
  if (names.size > 0) await tx.unsafe(`LOCK TABLE ${[...names].map(quoted).join(', ')} IN ACCESS EXCLUSIVE MODE`)
}

const revert = async (tx: Tx, { when, down, tables, columns }: Step): Promise<void> => {
  if (down !== undefined) await tx.unsafe(down)
  for (const { table, columns: names } of columns) {
    await tx.unsafe(`ALTER TABLE ${quoted(table)} ${names.map((name) => `DROP COLUMN ${quoted(name)}`).join(', ')}`)
  }
  // In one statement, because they refer to each other; without CASCADE, because what else refers to them is not ours to drop.
  if (tables.length > 0) await tx.unsafe(`DROP TABLE ${tables.map(quoted).join(', ')}`)
  await tx`DELETE FROM backupd_migrations WHERE created_at = ${when}`
}

const carryOut = async (sql: Sql, steps: readonly Step[], keep: Exclude<Keeping, undefined>, signal: AbortSignal): Promise<DownResult> => {
  const files: string[] = []
  try {
    const lost = await sql.begin(async (tx) => {
      await lock(tx, steps)
      const losses = await lossesOf(tx, steps)
      if (keep !== 'discard') for (const step of steps) await exportStep(tx, step, keep.folder, files, signal)
      for (const step of steps) {
        throwIfAborted(signal)
        await revert(tx, step)
      }
      return losses
    })
    return { reverted: steps.map(({ tag }) => tag), files, lost }
  } catch (error) {
    await discardFiles(files)
    throw error
  }
}

/**
 * Takes back migrations until `to` are left, newest first, after writing what is lost with them as CSV. All or nothing. Refuses with
 * `catalog.down_loses` (exit code 2) when it is not said what becomes of the data, with `catalog.adopted` where that would drop tables
 * of the other application, with `catalog.newer_schema` where it does not know how, and with `catalog.export` when the folder is not
 * empty or cannot be written to.
 */
export const migrateDown = (url: Secret, to: number, { signal, log, keep, dryRun = false }: DownOptions): Promise<DownResult> =>
  withOneConnection(url, async (sql, where) => {
    await takeMigrationLock(sql, signal)
    await sql`SELECT set_config('statement_timeout', '0', false), set_config('idle_in_transaction_session_timeout', '0', false)`
    const steps = stepsDown(await appliedMigrations(sql), to, where)
    if (steps.length === 0) return { reverted: [], files: [], lost: [] }
    if (dryRun) return { reverted: steps.map(({ tag }) => tag), files: [], lost: await lossesOf(sql, steps) }
    if (keep === undefined) throw refuse(to, steps, await lossesOf(sql, steps))
    if (keep !== 'discard') await prepareFolder(keep.folder)
    const result = await carryOut(sql, steps, keep, signal)
    for (const { tag } of steps) log.warn({ migration: tag, ...(keep === 'discard' ? { discarded: true } : { folder: keep.folder }) }, 'catalog migration taken back')
    return result
  })
