import { getTableColumns, sql, type SQL } from './drizzle.js'
import type { Db } from './connect.js'
import { auditLogs } from './schema.js'

/** A row of the shared table `audit_logs` as PostgreSQL's row_to_json writes it: columns of the application's own too, times in UTC to the microsecond. */
export type LogRow = Record<string, unknown> & { id: number; checksum: string | null; signature: string | null }

/** Names of the columns that the schema knows. */
export const logColumns: readonly string[] = Object.keys(getTableColumns(auditLogs))

/** Rows that are past their time and not yet in an archive. */
const due = sql`retention_until < now() AND NOT archived`

const lines = async (db: Db, query: SQL): Promise<string[]> => [...await db.execute<{ line: string }>(query)].map(({ line }) => line)

export interface LogRange {
  since?: Date
  until?: Date
}

const within = ({ since, until }: LogRange): SQL => sql`
  ${since === undefined ? sql`true` : sql`created_at >= ${since.toISOString()}`} AND ${until === undefined ? sql`true` : sql`created_at < ${until.toISOString()}`}`

/** All rows of the range in order of their ids, in pages. */
export async function* readLogs(db: Db, range: LogRange, page = 500): AsyncGenerator<LogRow[]> {
  for (let last = 0; ;) {
    const rows = (await lines(db, sql`SELECT row_to_json(a)::text AS line FROM audit_logs a WHERE id > ${last} AND ${within(range)} ORDER BY id LIMIT ${page}`))
      .map((line) => JSON.parse(line) as LogRow)
    const end = rows.at(-1)
    if (end === undefined) return
    yield rows
    last = end.id
  }
}

/** The next rows after `last` without a signature, locked until the transaction ends. */
export const lockUnsigned = async (tx: Db, last: number, range: LogRange, limit: number): Promise<LogRow[]> =>
  (await lines(tx, sql`SELECT row_to_json(a)::text AS line FROM audit_logs a WHERE id > ${last} AND signature IS NULL AND ${within(range)} ORDER BY id LIMIT ${limit} FOR UPDATE`))
    .map((line) => JSON.parse(line) as LogRow)

/** Fills in checksums and signatures. */
export const storeSignatures = async (tx: Db, signed: readonly { id: number; checksum: string; signature: string }[]): Promise<void> => {
  await tx.execute(sql`
    UPDATE audit_logs SET checksum = v.checksum, signature = v.signature
    FROM json_to_recordset(${JSON.stringify(signed)}::json) AS v(id integer, checksum text, signature text) WHERE audit_logs.id = v.id`)
}

/** How many rows are due for the archive, and from when to when they were written. */
export const countDueLogs = async (db: Db): Promise<{ rows: number; oldest: string | null; newest: string | null }> => {
  const [found] = [...await db.execute<{ n: number; oldest: string | null; newest: string | null }>(
    sql`SELECT count(*) AS n, to_json(min(created_at)) #>> '{}' AS oldest, to_json(max(created_at)) #>> '{}' AS newest FROM audit_logs WHERE ${due}`)]
  return { rows: Number(found?.n ?? 0), oldest: found?.oldest ?? null, newest: found?.newest ?? null }
}

/** Ids of rows that are due, those that are longest overdue, locked until the transaction ends; those that somebody else has locked are left to them. */
export const lockDueLogs = async (tx: Db, limit: number): Promise<number[]> =>
  [...await tx.execute<{ id: number }>(sql`SELECT id FROM audit_logs WHERE ${due} ORDER BY retention_until LIMIT ${limit} FOR UPDATE SKIP LOCKED`)]
    .map(({ id }) => Number(id)).sort((a, b) => a - b)

/** The rows of these ids as JSON texts, in order, some at a time. */
export async function* logLines(tx: Db, ids: readonly number[], page = 50): AsyncGenerator<string> {
  for (let at = 0; at < ids.length; at += page) {
    const some = JSON.stringify(ids.slice(at, at + page))
    yield* await lines(tx, sql`SELECT row_to_json(a)::text AS line FROM audit_logs a
      WHERE id IN (SELECT value::integer FROM json_array_elements_text(${some}::json)) ORDER BY id`)
  }
}

/** Marks rows as archived, or removes them; resolves to how many. */
export const settleArchived = async (tx: Db, ids: readonly number[], remove: boolean): Promise<number> => {
  const chosen = sql`id IN (SELECT value::integer FROM json_array_elements_text(${JSON.stringify(ids)}::json))`
  const rows = remove
    ? await tx.execute(sql`DELETE FROM audit_logs WHERE ${chosen} RETURNING id`)
    : await tx.execute(sql`UPDATE audit_logs SET archived = true, archived_at = now() WHERE ${chosen} AND NOT archived RETURNING id`)
  return [...rows].length
}
