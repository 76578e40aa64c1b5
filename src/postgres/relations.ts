import type postgres from 'postgres'

export const relationKinds = ['table', 'partitioned table', 'view', 'materialized view', 'foreign table', 'sequence'] as const
export type RelationKind = (typeof relationKinds)[number]

/** A relation of a database that pg_dump would dump. */
export interface Relation {
  oid: number
  schema: string
  name: string
  kind: RelationKind
  /** Bytes on disk with its TOAST, without indexes; 0 for what has no rows of its own. */
  size: number
  /** The planner's guess, -1 when it was never analysed. */
  estimatedRows: number
  /** Rows are in the dump; false for views, partitioned tables, foreign tables, and unlogged tables of a standby. */
  hasData: boolean
  /** Parents of inheritance and partitioning, by oid. */
  parents: number[]
  /** Relations that a view's definition reads, by oid. */
  reads: number[]
  /** For a sequence: the table whose column owns it. */
  ownedBy: number | null
  /** Targets of its foreign keys. */
  references: { constraint: string; table: number }[]
  /** What is no relation and cannot be made without this one: functions of its row type, policies and rules of other tables. */
  neededBy: { what: string; table: number | null }[]
}

const kinds: Record<string, RelationKind> = {
  r: 'table', p: 'partitioned table', v: 'view', m: 'materialized view', f: 'foreign table', S: 'sequence',
}

interface Row {
  oid: string
  schema: string
  name: string
  relkind: string
  size: string
  rows: string
  readable: boolean
  parents: number[] | null
  reads: number[] | null
  owned_by: string | null
  refs: { constraint: string; table: number }[] | null
  needed_by: { what: string; table: number | null }[] | null
}

/**
 * Every table, view and sequence that pg_dump dumps, in the order of schema and name: not those of the system, of other
 * sessions, or of an extension. Runs in the caller's transaction and so under its snapshot.
 */
export const listRelations = async (sql: postgres.ISql): Promise<Relation[]> => {
  const rows = await sql<Row[]>`
    SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind,
      CASE WHEN c.relkind IN ('r', 'm') THEN pg_catalog.pg_table_size(c.oid) ELSE 0 END AS size,
      c.reltuples AS rows,
      c.relkind = 'r' AND NOT (c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery()) AS readable,
      (SELECT json_agg(i.inhparent::int8) FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid) AS parents,
      (SELECT json_agg(DISTINCT d.refobjid::int8) FROM pg_catalog.pg_rewrite w
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid
          AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> c.oid
        WHERE w.ev_class = c.oid AND c.relkind IN ('v', 'm')) AS reads,
      (SELECT d.refobjid FROM pg_catalog.pg_depend d
        WHERE c.relkind = 'S' AND d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
          AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i') LIMIT 1) AS owned_by,
      (SELECT json_agg(json_build_object('constraint', k.conname, 'table', k.confrelid::int8)) FROM pg_catalog.pg_constraint k
        WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0) AS refs,
      (SELECT json_agg(json_build_object('what', pg_catalog.pg_describe_object(o.classid, o.objid, 0), 'table', o.owner)) FROM (
        SELECT d.classid, d.objid, coalesce(p.polrelid, w.ev_class, a.adrelid, CASE WHEN k.relkind <> 'c' THEN k.oid END)::int8 AS owner
        FROM pg_catalog.pg_depend d
        LEFT JOIN pg_catalog.pg_policy p ON d.classid = 'pg_catalog.pg_policy'::regclass AND p.oid = d.objid
        LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND w.oid = d.objid
        LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = d.objid
        LEFT JOIN pg_catalog.pg_class k ON d.classid = 'pg_catalog.pg_class'::regclass AND k.oid = d.objid
        LEFT JOIN pg_catalog.pg_type t ON d.classid = 'pg_catalog.pg_type'::regclass AND t.oid = d.objid
        WHERE ((d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND k.oid IS NULL)
            OR (d.refclassid = 'pg_catalog.pg_type'::regclass AND d.refobjid IN (c.reltype, (SELECT typarray FROM pg_catalog.pg_type WHERE oid = c.reltype))))
          AND (d.classid = 'pg_catalog.pg_proc'::regclass OR t.typtype = 'd' OR coalesce(p.polrelid, w.ev_class, a.adrelid, k.oid, c.oid) <> c.oid)
          AND (w.oid IS NULL OR (SELECT r.relkind FROM pg_catalog.pg_class r WHERE r.oid = w.ev_class) NOT IN ('v', 'm'))
        GROUP BY 1, 2, 3) o) AS needed_by
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_class'::regclass
        AND e.objid = c.oid AND e.objsubid = 0 AND e.deptype = 'e')
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`
  return rows.map((row) => ({
    oid: Number(row.oid),
    schema: row.schema,
    name: row.name,
    kind: kinds[row.relkind] as RelationKind,
    size: Number(row.size),
    estimatedRows: Number(row.rows),
    hasData: row.readable,
    parents: row.parents ?? [],
    reads: row.reads ?? [],
    ownedBy: row.owned_by === null ? null : Number(row.owned_by),
    references: row.refs ?? [],
    neededBy: row.needed_by ?? [],
  }))
}

/** `text` as an identifier in SQL. */
export const quoteName = (text: string): string => `"${text.replaceAll('"', '""')}"`

/** `schema.name` with both quoted, for SQL. */
export const quoteRelation = ({ schema, name }: { schema: string; name: string }): string => `${quoteName(schema)}.${quoteName(name)}`
