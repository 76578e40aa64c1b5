import { chooseTools, type Tools } from '../postgres/tools.js'
import type { Connection } from '../postgres/connection.js'
import { describeDatabase } from '../postgres/describe.js'
import { withSql } from '../postgres/sql.js'
import { BackupdError } from '../errors.js'

/** What backing up a source would meet. */
export interface SourceReport {
  server_version: string
  database: string
  role: string
  superuser: boolean
  standby: boolean
  size_bytes: number
  extensions: string[]
  /** Tables that the role may not read, as `schema.table`; no names beyond the first ten. */
  unreadable_tables: string[]
  unreadable_count: number
  /** Large objects that the role may not read. */
  unreadable_large_objects: number
  /** The installation that would be used; undefined when none is new enough. */
  pg_dump: { version: string; path: string } | undefined
  /** What will be missing in a backup, or keeps it from working; one sentence each. */
  problems: string[]
  warnings: string[]
}

// Partitioned tables have no rows of their own, but pg_dump locks them all the same; system schemas are not dumped.
const unreadable = `
  SELECT n.nspname || '.' || c.relname AS name, count(*) OVER () AS total
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'm', 'S') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'))
  ORDER BY 1 LIMIT 10`

const rowSecurity = `
  SELECT count(*) AS total FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles r ON r.rolname = current_user
  WHERE c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls AND (c.relforcerowsecurity OR NOT pg_catalog.pg_has_role(c.relowner, 'USAGE'))`

// The rights to large objects are in their own lists, and no predefined role has them all.
const closedObjects = `
  SELECT count(*) AS total FROM pg_catalog.pg_largeobject_metadata o
  WHERE pg_catalog.current_setting('lo_compat_privileges') = 'off' AND NOT pg_catalog.pg_has_role(o.lomowner, 'USAGE') AND NOT EXISTS (
    SELECT FROM pg_catalog.aclexplode(o.lomacl) a
    WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))`

const suitable = (found: readonly Tools[], major: number): { tools?: Tools; problem?: string } => {
  try {
    return { tools: chooseTools(found, major) }
  } catch (error) {
    if (!(error instanceof BackupdError)) throw error
    return { problem: `${error.message}. ${error.hint ?? ''}` }
  }
}

/** Connects to a source and looks at what a backup of it needs. Fails with `source.*` when it cannot connect. */
export const inspectSource = (connection: Connection, found: readonly Tools[], signal: AbortSignal): Promise<SourceReport> =>
  withSql(connection, { signal }, async (sql) => {
    const database = await describeDatabase(sql)
    const hidden = await sql.unsafe<{ name: string; total: string }[]>(unreadable)
    const [secured] = await sql.unsafe<{ total: string }[]>(rowSecurity)
    const [objects] = await sql.unsafe<{ total: string }[]>(closedObjects)
    const [who] = await sql<{ role: string }[]>`SELECT current_user::text AS role`
    const { tools, problem } = suitable(found, database.serverMajor)
    const unreadableCount = Number(hidden[0]?.total ?? 0)
    const closedCount = database.superuser ? 0 : Number(objects?.total ?? 0)
    const securedCount = Number(secured?.total ?? 0)
    const role = who?.role ?? connection.user
    return {
      server_version: database.serverVersion,
      database: database.database,
      role,
      superuser: database.superuser,
      standby: database.inRecovery,
      size_bytes: database.size,
      extensions: database.extensions.map(({ name, version }) => `${name} ${version}`),
      unreadable_tables: hidden.map(({ name }) => name),
      unreadable_count: unreadableCount,
      unreadable_large_objects: closedCount,
      pg_dump: tools === undefined ? undefined : { version: tools.version, path: tools.pg_dump },
      problems: [
        ...(problem === undefined ? [] : [problem]),
        ...(unreadableCount === 0 ? [] : [`the role ${role} may not read ${unreadableCount} of the tables and sequences; grant it pg_read_all_data (PostgreSQL 14 and newer) or SELECT on them`]),
        ...(closedCount === 0 ? [] : [`the role ${role} may not read ${closedCount} of the large objects; grant it SELECT ON LARGE OBJECT for each, or use the role that owns them`]),
        ...(securedCount === 0 ? [] : [`row security hides rows of ${securedCount} tables from the role ${role}; give it BYPASSRLS`]),
      ],
      warnings: database.superuser ? [] : [`the role ${role} is no superuser: roles are backed up without their passwords`],
    }
  })
