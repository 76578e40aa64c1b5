import { connectTo } from './sql.js'

const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`

/** What a table holds, whatever the order of its rows. */
export interface TableContent {
  table: string
  rows: number
  /** Sum of the rows' md5, each over the row as text. */
  hash: string
}

/**
 * The content of every table and filled materialised view of a database, of its large objects and its sequences, such that two
 * databases with the same content give the same.
 */
export const databaseContent = async (url: string): Promise<TableContent[]> => {
  const sql = connectTo(url)
  try {
    await sql`SET extra_float_digits = 3`
    const relations = await sql<{ schema: string; name: string; kind: string }[]>`
      SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE (c.relkind IN ('r', 'S') OR (c.relkind = 'm' AND c.relispopulated)) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      ORDER BY 1, 2`
    const contents: TableContent[] = []
    const hash = async (table: string, from: string): Promise<void> => {
      const [row] = await sql.unsafe(
        `SELECT count(*)::text AS rows, coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint::numeric), 0)::text AS hash FROM ${from} t`,
      )
      contents.push({ table, rows: Number(row?.['rows']), hash: row?.['hash'] as string })
    }
    for (const { schema, name, kind } of relations) {
      const relation = `${quote(schema)}.${quote(name)}`
      // log_cnt of a sequence is how far its write-ahead log is ahead, not content.
      await hash(`${schema}.${name}`, kind === 'S' ? `(SELECT last_value, is_called FROM ${relation})` : `ONLY ${relation}`)
    }
    await hash('large objects', '(SELECT oid, lo_get(oid) FROM pg_largeobject_metadata)')
    return contents
  } finally {
    await sql.end()
  }
}
