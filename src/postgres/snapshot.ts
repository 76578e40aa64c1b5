import type postgres from 'postgres'
import { abortError, messageOf, throwIfAborted } from '../errors.js'
import { redact } from '../secret.js'
import type { Connection } from './connection.js'
import { isConnectionFailure, sourceError } from './failures.js'
import { listRelations, quoteRelation, type Relation } from './relations.js'
import { openSql, withSql, type Sql } from './sql.js'

/** Rows of one table as the snapshot sees them. */
export interface TableRows {
  schema: string
  name: string
  rows: number
}

/** One moment of a database, held open so that several programs see the same. */
export interface Snapshot {
  /** For pg_dump's --snapshot; undefined when no other connection can use it, for the reason in `notShared`. */
  id: string | undefined
  /** A warning: why the snapshot cannot be shared, so that a dump sees a moment of its own. */
  notShared: string | undefined
  /** All that pg_dump would dump, before any pattern. */
  relations: Relation[]
  largeObjects: number
  /** Exact counts of those of `tables` whose rows are dumped, under this snapshot. One process of the server, meant to run beside the dump. */
  countRows(tables: readonly Relation[], signal: AbortSignal): Promise<TableRows[]>
  /** Ends the transaction; never throws. */
  release(): Promise<void>
}

export interface SnapshotOptions {
  signal: AbortSignal
  /** Which relations to lock (ACCESS SHARE), so that they are still there when pg_dump comes to them; default all. */
  lock?: (relations: Relation[]) => Relation[]
}

interface Held extends Pick<Snapshot, 'id' | 'notShared' | 'relations' | 'largeObjects'> {
  tx: postgres.TransactionSql
}

// A dump may take longer than any limit that is right for other sessions.
const liftLimits = async (tx: postgres.TransactionSql): Promise<void> => {
  await tx`SET LOCAL statement_timeout = 0`
  await tx`SET LOCAL idle_in_transaction_session_timeout = 0`
  await tx`SET LOCAL lock_timeout = 0`
  await tx`SELECT set_config(name, '0', true) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'`
}

const LOCKED_AT_ONCE = 200

const lockRelations = async (tx: postgres.TransactionSql, relations: readonly Relation[]): Promise<void> => {
  const tables = relations.filter(({ kind }) => kind === 'table' || kind === 'partitioned table')
  for (let from = 0; from < tables.length; from += LOCKED_AT_ONCE) {
    const names = tables.slice(from, from + LOCKED_AT_ONCE).map((table) => `ONLY ${quoteRelation(table)}`)
    await tx.unsafe(`LOCK TABLE ${names.join(', ')} IN ACCESS SHARE MODE`)
  }
}

const take = async (tx: postgres.TransactionSql, exporting: boolean, lock: SnapshotOptions['lock']): Promise<Held> => {
  await liftLimits(tx)
  const relations = await listRelations(tx)
  await lockRelations(tx, lock === undefined ? relations : lock(relations))
  const [objects] = await tx`SELECT count(*)::text AS number FROM pg_catalog.pg_largeobject_metadata`
  const [exported] = exporting ? await tx`SELECT pg_catalog.pg_export_snapshot() AS id` : []
  return { tx, relations, largeObjects: Number(objects?.['number']), id: exported?.['id'] as string | undefined, notShared: undefined }
}

interface Transaction {
  held: Held
  /** Settles when the transaction is over, also when the connection was lost. */
  over: Promise<unknown>
  finish: () => void
}

const begin = async (sql: Sql, exporting: boolean, lock: SnapshotOptions['lock']): Promise<Transaction> => {
  let finish = (): void => undefined
  const finished = new Promise<void>((resolve) => { finish = resolve })
  let over: Promise<unknown> = Promise.resolve()
  const held = await new Promise<Held>((resolve, reject) => {
    over = sql.query.begin('isolation level repeatable read read only', async (tx) => {
      resolve(await take(tx, exporting, lock))
      await finished
    })
    over.catch(reject)
  })
  return { held, over, finish }
}

const sqlState = (error: unknown): unknown => (error as { code?: unknown }).code

// Once more when a table was dropped between being listed and being locked; without exporting when the server refuses that.
const beginWithRetries = async (sql: Sql, lock: SnapshotOptions['lock']): Promise<Transaction> => {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await begin(sql, true, lock)
    } catch (error) {
      if (sqlState(error) === '42P01' && attempt < 4) continue
      const refusal = (error as { query?: unknown }).query
      if (typeof refusal !== 'string' || !refusal.includes('pg_export_snapshot') || isConnectionFailure(error)) throw error
      const transaction = await begin(sql, false, lock)
      transaction.held.notShared = `the server does not export its snapshot: ${redact(messageOf(error))}`
      return transaction
    }
  }
}

// A proxy or balancer may send the next connection to another server, where the snapshot is not known.
const whyNotShared = async (connection: Connection, id: string, signal: AbortSignal): Promise<string | undefined> => {
  try {
    await withSql(connection, { signal }, (sql) =>
      sql.begin('isolation level repeatable read read only', (tx) => tx.unsafe(`SET TRANSACTION SNAPSHOT '${id.replaceAll("'", "''")}'`)),
    )
    return undefined
  } catch (error) {
    throwIfAborted(signal)
    return `a second connection cannot use the snapshot, as behind a proxy: ${redact(messageOf(error))}`
  }
}

const countIn = async (tx: postgres.TransactionSql, tables: readonly Relation[], signal: AbortSignal): Promise<TableRows[]> => {
  const counts: TableRows[] = []
  // Beside a dump one process is enough; and a policy that hides rows must be an error, not a smaller number.
  await tx`SET LOCAL max_parallel_workers_per_gather = 0`
  await tx`SET LOCAL row_security = off`
  for (const table of tables.filter(({ hasData }) => hasData)) {
    throwIfAborted(signal)
    const statement = tx.unsafe(`SELECT count(*)::text AS rows FROM ONLY ${quoteRelation(table)}`)
    const cancel = () => void statement.cancel()
    signal.addEventListener('abort', cancel)
    try {
      const [row] = await statement
      counts.push({ schema: table.schema, name: table.name, rows: Number(row?.['rows']) })
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }
  return counts
}

/**
 * Opens a REPEATABLE READ, READ ONLY transaction, lists what there is, locks it and exports the snapshot; then proves with a second
 * connection that it can be used. Works on a standby too. `release` must be called. Fails with `source.*`.
 */
export const holdSnapshot = async (connection: Connection, { signal, lock }: SnapshotOptions): Promise<Snapshot> => {
  const sql = await openSql(connection, { signal, applicationName: 'backupd snapshot' })
  try {
    const { held, over, finish } = await beginWithRetries(sql, lock)
    const { tx, relations, largeObjects } = held
    let lost: unknown
    over.catch((error: unknown) => { lost = error })
    if (held.id !== undefined) held.notShared = await whyNotShared(connection, held.id, signal)
    return {
      id: held.notShared === undefined ? held.id : undefined,
      notShared: held.notShared,
      relations,
      largeObjects,
      countRows: async (tables, countSignal) => {
        try {
          throwIfAborted(countSignal)
          if (lost !== undefined) throw lost
          // A savepoint keeps the snapshot when a count fails.
          return await tx.savepoint((inner) => countIn(inner, tables, countSignal))
        } catch (error) {
          if (countSignal.aborted) throw abortError(countSignal)
          throwIfAborted(signal)
          throw sourceError(error, connection)
        }
      },
      release: async () => {
        finish()
        await over.catch(() => undefined)
        await sql.close()
      },
    }
  } catch (error) {
    await sql.close()
    throwIfAborted(signal)
    throw sourceError(error, connection)
  }
}
