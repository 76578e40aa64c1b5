// Prints the SQL that brings any database, empty or with some of the tables in it, to a snapshot of drizzle-kit:
//   node scripts/adoption-sql.mjs drizzle/meta/0001_snapshot.json [drizzle/meta/0000_snapshot.json]
// With a second snapshot only what the first has beyond it. `drizzle-kit generate` writes plain CREATE statements, which fail on
// tables that the other application made; its .sql file is replaced by this output, its snapshot is kept.
import { readFileSync } from 'node:fs'

const [target, base] = process.argv.slice(2).map((file) => JSON.parse(readFileSync(file, 'utf8')).tables)
const quote = (text) => (text === undefined || text === null ? 'NULL' : `'${String(text).replaceAll("'", "''")}'`)
const values = (rows) => rows.map((row) => `    (${row.join(', ')})`).join(',\n')
const before = (table) => base?.[`public.${table}`]

const columns = []
const indexes = []
const keys = []
const created = []
// `users` and `projects` are somebody else's: when they are there, nothing in them is touched.
const outside = new Set(['users', 'projects'])
// Sequential scans over VALUES keep the order in which the schema lists the tables, which is how they read best.
for (const table of Object.values(target)) {
  const old = before(table.name)
  if (old === undefined) created.push(table.name)
  for (const column of Object.values(table.columns)) {
    if (old?.columns[column.name] !== undefined || outside.has(table.name)) continue
    const type = column.primaryKey ? `${column.type} PRIMARY KEY` : column.type
    columns.push([columns.length, quote(table.name), quote(column.name), quote(type), column.notNull && !column.primaryKey, quote(column.default)])
  }
  for (const index of Object.values(table.indexes)) {
    if (old?.indexes[index.name] !== undefined) continue
    const list = index.columns.map(({ expression }) => expression).join(', ')
    indexes.push([quote(index.name), quote(table.name), index.isUnique, false, quote(list), quote(index.where)])
  }
  for (const unique of Object.values(table.uniqueConstraints)) {
    if (old?.uniqueConstraints[unique.name] === undefined) {
      indexes.push([quote(unique.name), quote(table.name), true, true, quote(unique.columns.join(', ')), 'NULL'])
    }
  }
  for (const key of Object.values(table.foreignKeys)) {
    if (old?.foreignKeys[key.name] !== undefined) continue
    keys.push([quote(key.name), quote(table.name), quote(key.columnsFrom[0]), quote(key.tableTo), quote(key.onDelete)])
  }
}

const tables = created.map((name) => outside.has(name)
  ? `CREATE TABLE IF NOT EXISTS "${name}" ("id" integer PRIMARY KEY);`
  : `CREATE TABLE IF NOT EXISTS "${name}" ();`)

process.stdout.write(`-- Written by scripts/adoption-sql.mjs from the snapshot of the same number in meta/.
-- Every step adds what is missing and leaves alone what is there, whoever made it: no type is changed and nothing is dropped.
${tables.join('\n')}
--> statement-breakpoint
-- Columns: those that are missing are added; those that have no default in the database get the one of the schema.
DO $adopt$
DECLARE
  change record;
  has_rows boolean;
BEGIN
  FOR change IN
    WITH wanted (place, table_name, column_name, type, required, default_value) AS (VALUES
${values(columns)}
    ), compared AS (
      SELECT wanted.*, a.attname IS NULL AS missing,
        a.attname IS NOT NULL AND NOT a.atthasdef AND a.attidentity = '' AND default_value IS NOT NULL AS undefaulted,
        a.attname IS NOT NULL AND NOT a.atthasdef AND a.attidentity = '' AND type = 'serial PRIMARY KEY' AS unnumbered
      FROM wanted
      JOIN pg_class c ON c.relname = table_name AND c.relnamespace = quote_ident(current_schema())::regnamespace
      LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = column_name AND NOT a.attisdropped
    ), worded AS (
      SELECT *, format('ADD COLUMN %I %s', column_name, type) || coalesce(' DEFAULT ' || default_value, '') AS addition,
        format('ALTER COLUMN %I SET DEFAULT %s', column_name, default_value) AS defaulting
      FROM compared WHERE missing OR undefaulted OR unnumbered
    )
    SELECT table_name, bool_or(unnumbered) AS unnumbered,
      string_agg(CASE WHEN missing THEN addition || CASE WHEN required THEN ' NOT NULL' ELSE '' END
        WHEN undefaulted THEN defaulting END, ', ' ORDER BY place) AS clauses,
      -- A required column cannot be added to a table with rows unless it has a default.
      string_agg(CASE WHEN missing THEN addition || CASE WHEN required AND default_value IS NOT NULL THEN ' NOT NULL' ELSE '' END
        WHEN undefaulted THEN defaulting END, ', ' ORDER BY place) AS lenient_clauses
    FROM worded GROUP BY table_name ORDER BY min(place)
  LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM %I)', change.table_name) INTO has_rows;
    IF change.clauses IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %I %s', change.table_name, CASE WHEN has_rows THEN change.lenient_clauses ELSE change.clauses END);
    END IF;
    IF change.unnumbered THEN
      EXECUTE format('CREATE SEQUENCE IF NOT EXISTS %I AS integer OWNED BY %I.id', change.table_name || '_id_seq', change.table_name);
      EXECUTE format('SELECT setval(%L, coalesce(max(id), 0) + 1, false) FROM %I',
        quote_ident(change.table_name || '_id_seq'), change.table_name);
      EXECUTE format('ALTER TABLE %I ALTER COLUMN id SET DEFAULT nextval(%L)',
        change.table_name, quote_ident(change.table_name || '_id_seq'));
    END IF;
  END LOOP;
END
$adopt$;
--> statement-breakpoint
-- Indexes: by name and table. A name that something else in the schema has already is taken with a prefix.
DO $adopt$
DECLARE
  wanted record;
  chosen text;
BEGIN
  FOR wanted IN SELECT * FROM (VALUES
${values(indexes)}
  ) AS list (name, table_name, is_unique, is_constraint, columns, condition)
  LOOP
    chosen := wanted.name;
    IF EXISTS (SELECT FROM pg_class WHERE relname = chosen AND relnamespace = quote_ident(current_schema())::regnamespace)
      AND NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(format('%I.%I', current_schema(), chosen))
        AND indrelid = to_regclass(format('%I.%I', current_schema(), wanted.table_name)))
    THEN
      chosen := left('backupd_' || wanted.name, 63);
    END IF;
    IF to_regclass(format('%I.%I', current_schema(), chosen)) IS NOT NULL THEN
      CONTINUE;
    ELSIF wanted.is_constraint THEN
      EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I UNIQUE (%s)', wanted.table_name, chosen, wanted.columns);
    ELSE
      EXECUTE format('CREATE %s %I ON %I (%s) %s', CASE WHEN wanted.is_unique THEN 'UNIQUE INDEX' ELSE 'INDEX' END, chosen,
        wanted.table_name, wanted.columns, coalesce('WHERE ' || wanted.condition, ''));
    END IF;
  END LOOP;
END
$adopt$;
--> statement-breakpoint
-- Foreign keys: one on the same column to the same table will do, whatever its name. Where rows point to nothing, it holds for
-- new rows only.
DO $adopt$
DECLARE
  wanted record;
  head text;
  body text;
BEGIN
  FOR wanted IN SELECT * FROM (VALUES
${values(keys)}
  ) AS list (name, table_name, column_name, referenced, on_delete)
  LOOP
    CONTINUE WHEN EXISTS (
      SELECT FROM pg_constraint k
      JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attname = wanted.column_name
      WHERE k.contype = 'f' AND k.conkey = ARRAY[a.attnum]
        AND k.conrelid = to_regclass(format('%I.%I', current_schema(), wanted.table_name))
        AND k.confrelid = to_regclass(format('%I.%I', current_schema(), wanted.referenced)));
    -- A name that another constraint of the table has is left to PostgreSQL to choose.
    head := CASE WHEN EXISTS (SELECT FROM pg_constraint WHERE conname = wanted.name
        AND conrelid = to_regclass(format('%I.%I', current_schema(), wanted.table_name)))
      THEN '' ELSE format('CONSTRAINT %I ', wanted.name) END;
    body := format('ALTER TABLE %I ADD %sFOREIGN KEY (%I) REFERENCES %I (id) ON DELETE %s',
      wanted.table_name, head, wanted.column_name, wanted.referenced, wanted.on_delete);
    BEGIN
      EXECUTE body;
    EXCEPTION WHEN foreign_key_violation THEN
      EXECUTE body || ' NOT VALID';
    END;
  END LOOP;
END
$adopt$;
`)
