import { randomBytes } from 'node:crypto'
import type postgres from 'postgres'
import { BackupdError, messageOf } from '../errors.js'
import { withDatabase, type Connection } from './connection.js'
import type { DatabaseDescription, DatabaseShape } from './describe.js'
import { isConnectionFailure, sourceError } from './failures.js'
import { quoteName, quoteRelation } from './relations.js'
import { withSql } from './sql.js'
import type { TableRows } from './snapshot.js'

// Databases that are there on most servers, from which another one is made or dropped.
const doors = ['postgres', 'template1'] as const

/** Runs `work` on a connection to some database of the server other than `connection`'s own. */
export const onServer = async <T>(connection: Connection, signal: AbortSignal, work: (sql: postgres.Sql) => Promise<T>): Promise<T> => {
  let last: unknown
  for (const door of doors.filter((name) => name !== connection.database)) {
    try {
      return await withSql(withDatabase(connection, door), { signal }, work)
    } catch (error) {
      if (!(error instanceof BackupdError) || !['source.no_database', 'source.denied'].includes(error.code)) throw error
      last = error
    }
  }
  throw last
}

/** Whether the server of `connection` has the database that it names. */
export const databaseExists = (connection: Connection, signal: AbortSignal): Promise<boolean> =>
  onServer(connection, signal, async (sql) => {
    const rows = await sql`SELECT FROM pg_catalog.pg_database WHERE datname = ${connection.database}`
    return rows.length > 0
  })

const literal = (text: string): string => (text.includes('\\') ? ` E'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'` : `'${text.replaceAll("'", "''")}'`)

// From 15 the provider can be said, from 16 with rules, from 17 there is a built-in one.
const localeClauses = (shape: DatabaseShape, targetMajor: number): string[] => {
  const clauses = [`LC_COLLATE ${literal(shape.collate)}`, `LC_CTYPE ${literal(shape.ctype)}`]
  if (targetMajor < 15) return clauses
  clauses.push(`LOCALE_PROVIDER ${shape.provider}`)
  if (shape.provider === 'icu' && shape.locale !== null) clauses.push(`ICU_LOCALE ${literal(shape.locale)}`)
  if (shape.provider === 'builtin' && shape.locale !== null) clauses.push(`BUILTIN_LOCALE ${literal(shape.locale)}`)
  if (shape.icuRules !== null && targetMajor >= 16) clauses.push(`ICU_RULES ${literal(shape.icuRules)}`)
  return clauses
}

const checkProvider = ({ provider, locale }: DatabaseShape, targetMajor: number): void => {
  const needs = provider === 'icu' ? 15 : provider === 'builtin' ? 17 : 0
  if (targetMajor >= needs) return
  throw new BackupdError('database.locale', `the database sorts with the ${provider} locale ${locale ?? ''}, which PostgreSQL ${targetMajor} has not for databases`, {
    kind: 'configuration',
    hint: `Restore on PostgreSQL ${needs} or newer, or create the database by hand with another locale and restore into it.`,
  })
}

/**
 * Creates the database that `connection` names, empty, in the shape of the one that was backed up. An owner that the server does not
 * have is left out, with a warning. Fails with `database.exists`, `database.locale` or `source.*`.
 */
export const createDatabase = async (connection: Connection, shape: DatabaseShape, signal: AbortSignal): Promise<{ warnings: string[] }> =>
  onServer(connection, signal, async (sql) => {
    const [server] = await sql`SELECT current_setting('server_version_num')::int / 10000 AS major`
    const major = server?.['major'] as number
    checkProvider(shape, major)
    const owners = await sql`SELECT FROM pg_catalog.pg_roles WHERE rolname = ${shape.owner}`
    const statement = [
      `CREATE DATABASE ${quoteName(connection.database)} TEMPLATE template0 ENCODING ${literal(shape.encoding)}`,
      ...localeClauses(shape, major),
      ...(owners.length > 0 ? [`OWNER ${quoteName(shape.owner)}`] : []),
    ].join(' ')
    try {
      await sql.unsafe(statement)
    } catch (error) {
      const code = (error as { code?: unknown }).code
      if (code === '42P04') {
        throw new BackupdError('database.exists', `there is a database ${connection.database} already`, {
          kind: 'configuration', cause: error, hint: 'Name another one; to replace it, say --overwrite.',
        })
      }
      if (/locale|collat|LC_C/i.test(messageOf(error)) && !isConnectionFailure(error)) {
        throw new BackupdError('database.locale', `the target server cannot make a database like the original: ${messageOf(error)}`, {
          kind: 'configuration', cause: error,
          hint: `Install the locale ${shape.collate} on the target, or create the database by hand with another one and restore into it.`,
        })
      }
      throw sourceError(error, connection)
    }
    const missing = `the role ${shape.owner} is not on the target; the database belongs to ${connection.user} instead`
    return { warnings: owners.length > 0 ? [] : [missing] }
  })

/** Drops the database that `connection` names, ending other sessions in it; nothing happens when it is not there. */
export const dropDatabase = (connection: Connection, signal: AbortSignal): Promise<void> =>
  onServer(connection, signal, async (sql) => {
    const [server] = await sql`SELECT current_setting('server_version_num')::int / 10000 AS major`
    const name = quoteName(connection.database)
    if ((server?.['major'] as number) >= 13) {
      await sql.unsafe(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
      return
    }
    const there = await sql`SELECT FROM pg_catalog.pg_database WHERE datname = ${connection.database}`
    if (there.length === 0) return
    // Nobody new may come in between ending the sessions and dropping.
    await sql.unsafe(`ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS false`)
    await sql`SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = ${connection.database} AND pid <> pg_backend_pid()`
    await sql.unsafe(`DROP DATABASE IF EXISTS ${name}`)
  })

/**
 * Puts the database `replacement` in the place of the one that `connection` names, in one transaction, and drops the old one. Sessions
 * in either are ended. Resolves to the old one's new name when it could not be dropped. When it rejects, it is where it was.
 */
export const replaceDatabase = (connection: Connection, replacement: string, signal: AbortSignal): Promise<string | undefined> =>
  onServer(connection, signal, async (sql) => {
    const [present, old, next] = [connection.database, `backupd_old_${randomBytes(4).toString('hex')}`, replacement]
    // A client that reconnects at once would keep the name busy.
    await sql.unsafe(`ALTER DATABASE ${quoteName(present)} WITH ALLOW_CONNECTIONS false`)
    try {
      await sql`SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname IN (${present}, ${next}) AND pid <> pg_backend_pid()`
      await sql.begin(async (tx) => {
        await tx.unsafe(`ALTER DATABASE ${quoteName(present)} RENAME TO ${quoteName(old)}`)
        await tx.unsafe(`ALTER DATABASE ${quoteName(next)} RENAME TO ${quoteName(present)}`)
      })
    } catch (error) {
      await sql.unsafe(`ALTER DATABASE ${quoteName(present)} WITH ALLOW_CONNECTIONS true`).catch(() => undefined)
      throw error
    }
    return sql.unsafe(`DROP DATABASE ${quoteName(old)}`).then(() => undefined, () => old)
  })

/** Something that the target lacks. */
export interface Missing {
  kind: 'role' | 'extension' | 'tablespace'
  name: string
  /** Whether the restore fails without it. */
  fatal: boolean
  /** What it is and what to do, one sentence. */
  message: string
}

/** What of `wanted` the server of `connection` lacks; run before a restore. The database itself need not be there. */
export const preflight = (
  connection: Connection,
  wanted: Pick<DatabaseDescription, 'roles' | 'extensions' | 'tablespaces'>,
  signal: AbortSignal,
): Promise<Missing[]> =>
  onServer(connection, signal, async (sql) => {
    const names = async (rows: Promise<Iterable<postgres.Row>>): Promise<Set<string>> => new Set([...(await rows)].map((row) => row['name'] as string))
    const roles = await names(sql`SELECT rolname AS name FROM pg_catalog.pg_roles`)
    const tablespaces = await names(sql`SELECT spcname AS name FROM pg_catalog.pg_tablespace`)
    const available = new Map((await sql`SELECT name, default_version AS version FROM pg_catalog.pg_available_extensions`)
      .map((row) => [row['name'] as string, row['version'] as string]))
    const missing: Missing[] = []
    for (const name of wanted.roles) {
      if (roles.has(name)) continue
      missing.push({ kind: 'role', name, fatal: true, message: `the role ${name} is not on the target: create it, restore the globals first, or restore without owners` })
    }
    for (const { name, version } of wanted.extensions) {
      const there = available.get(name)
      if (there === undefined) {
        missing.push({ kind: 'extension', name, fatal: true, message: `the extension ${name} ${version} is not available on the target: install its package there` })
      } else if (there !== version) {
        missing.push({ kind: 'extension', name, fatal: false, message: `the target has version ${there} of the extension ${name}, the backup was made with ${version}` })
      }
    }
    for (const name of wanted.tablespaces) {
      if (tablespaces.has(name)) continue
      missing.push({ kind: 'tablespace', name, fatal: true, message: `the tablespace ${name} is not on the target: create it, or restore without tablespaces` })
    }
    return missing
  })

/** Exact counts of the named tables, as they are now; a table that is not there is left out. */
export const countTables = (connection: Connection, tables: readonly { schema: string; name: string }[], signal: AbortSignal): Promise<TableRows[]> =>
  withSql(connection, { signal }, async (sql) => {
    const counts: TableRows[] = []
    for (const { schema, name } of tables) {
      const there = await sql`SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = ${schema} AND c.relname = ${name} AND c.relkind = 'r'`
      if (there.length === 0) continue
      const [row] = await sql.unsafe(`SELECT count(*)::text AS rows FROM ONLY ${quoteRelation({ schema, name })}`)
      counts.push({ schema, name, rows: Number(row?.['rows']) })
    }
    return counts
  })
