import type postgres from 'postgres'

export type LocaleProvider = 'libc' | 'icu' | 'builtin'

/** What it takes to create a database like this one. */
export interface DatabaseShape {
  encoding: string
  collate: string
  ctype: string
  provider: LocaleProvider
  /** The locale of ICU or of the built-in provider. */
  locale: string | null
  icuRules: string | null
  owner: string
}

/** What a server and one of its databases are. */
export interface DatabaseDescription extends DatabaseShape {
  database: string
  /** As the server says it, such as `15.18 (Debian 15.18-0+deb12u1)`. */
  serverVersion: string
  serverMajor: number
  superuser: boolean
  /** A standby. */
  inRecovery: boolean
  /** Bytes. */
  size: number
  extensions: { name: string; version: string }[]
  /** Owners and grantees of anything in it, also by default privileges and policies; not the server's own `pg_*` roles. */
  roles: string[]
  tablespaces: string[]
}

const providers: Record<string, LocaleProvider> = { c: 'libc', i: 'icu', b: 'builtin' }

interface ShapeRow {
  encoding: string
  collate: string
  ctype: string
  owner: string
  provider: string
  locale: string | null
  icu_rules: string | null
}

const shapeOf = async (sql: postgres.ISql, versionNumber: number): Promise<DatabaseShape> => {
  // Columns came and were renamed with the versions: the provider in 15, ICU rules in 16, one name for all locales in 17.
  const columns = [
    versionNumber >= 150_000 ? 'd.datlocprovider::text' : "'c'",
    versionNumber >= 170_000 ? 'd.datlocale' : versionNumber >= 150_000 ? 'd.daticulocale' : 'NULL',
    versionNumber >= 160_000 ? 'd.daticurules' : 'NULL',
  ]
  const [row] = await sql.unsafe<ShapeRow[]>(`
    SELECT pg_catalog.pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate, d.datctype AS ctype,
      pg_catalog.pg_get_userbyid(d.datdba) AS owner, ${columns[0]} AS provider, ${columns[1]} AS locale, ${columns[2]} AS icu_rules
    FROM pg_catalog.pg_database d WHERE d.datname = current_database()`)
  if (row === undefined) throw new Error('pg_database does not hold the current database')
  const { provider, icu_rules: icuRules, ...shape } = row
  return { ...shape, provider: providers[provider] ?? 'libc', icuRules }
}

// pg_shdepend knows every role that an object of this database depends on: as owner, in grants, default privileges and policies.
const rolesOf = async (sql: postgres.ISql): Promise<string[]> => {
  const rows = await sql<{ name: string }[]>`
    SELECT DISTINCT r.rolname AS name FROM pg_catalog.pg_roles r
    WHERE r.rolname !~ '^pg_' AND (
      r.oid = (SELECT datdba FROM pg_catalog.pg_database WHERE datname = current_database())
      OR EXISTS (SELECT FROM pg_catalog.pg_shdepend s WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND s.refobjid = r.oid
        AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())))
    ORDER BY 1`
  // Objects of the role that made the cluster are pinned in old versions and not in pg_shdepend.
  const pinned = await sql<{ name: string }[]>`
    SELECT DISTINCT pg_catalog.pg_get_userbyid(c.relowner) AS name FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`
  return [...new Set([...rows, ...pinned].map(({ name }) => name))].sort()
}

const tablespacesOf = async (sql: postgres.ISql): Promise<string[]> => {
  const rows = await sql<{ name: string }[]>`
    SELECT DISTINCT t.spcname AS name FROM pg_catalog.pg_class c JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
    WHERE t.spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1`
  return rows.map(({ name }) => name)
}

/** Describes the server and the database that `sql` is connected to. Works for servers 12 to 18. */
export const describeDatabase = async (sql: postgres.ISql): Promise<DatabaseDescription> => {
  const [server] = await sql`
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number, current_database() AS database,
      (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS superuser, pg_catalog.pg_is_in_recovery() AS standby,
      pg_catalog.pg_database_size(current_database()) AS size`
  const number = server?.['number'] as number
  const extensions = await sql<{ name: string; version: string }[]>`
    SELECT extname AS name, extversion AS version FROM pg_catalog.pg_extension ORDER BY extname`
  return {
    ...(await shapeOf(sql, number)),
    database: server?.['database'] as string,
    serverVersion: server?.['version'] as string,
    serverMajor: Math.floor(number / 10_000),
    superuser: server?.['superuser'] === true,
    inRecovery: server?.['standby'] === true,
    size: Number(server?.['size']),
    extensions: extensions.map(({ name, version }) => ({ name, version })),
    roles: await rolesOf(sql),
    tablespaces: await tablespacesOf(sql),
  }
}
