import type { Sql } from '../../src/catalog/client.js'

/** What a database looks like, in a form that two of them can be compared in. */
export interface Shape {
  /** `table.column: type null default` */
  columns: string[]
  indexes: string[]
  /** Without names, which the application may have chosen otherwise. */
  foreignKeys: string[]
}

/** The shape of the public schema; with `sameJson`, `json` and `jsonb` are taken for one, since adopted columns keep their type. */
export const shapeOf = async (sql: Sql, { sameJson = false } = {}): Promise<Shape> => {
  const columns = await sql<{ line: string }[]>`
    SELECT format('%s.%s: %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
      CASE WHEN a.attnotnull THEN 'NOT NULL' ELSE 'NULL' END, coalesce(pg_get_expr(d.adbin, d.adrelid), '-')) AS line
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY 1`
  const indexes = await sql<{ line: string }[]>`SELECT indexdef AS line FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1`
  const keys = await sql<{ line: string }[]>`
    SELECT format('%s: %s', conrelid::regclass, pg_get_constraintdef(oid)) AS line
    FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace ORDER BY 1`
  const lines = (rows: { line: string }[]): string[] =>
    rows.map(({ line }) => (sameJson ? line.replace(/\bjsonb?\b/g, 'json') : line)).sort()
  return { columns: lines(columns), indexes: lines(indexes), foreignKeys: lines(keys) }
}

/** All rows of a table as texts of the columns it has in `columns`. */
export const rowsOf = async (sql: Sql, table: string, columns: readonly string[]): Promise<string[]> =>
  (await sql.unsafe<{ row: string }[]>(`SELECT ROW(${columns.map((name) => `"${name}"::text`).join(', ')})::text AS row FROM "${table}" ORDER BY 1`))
    .map(({ row }) => row)
