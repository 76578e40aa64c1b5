import { DrizzleQueryError } from './drizzle.js'
import postgres from 'postgres'
import { BackupdError, messageOf } from '../errors.js'
import { redact } from '../secret.js'

const gone = new Set([
  'ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'ENOTFOUND', 'EAI_AGAIN', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH', 'EPIPE', 'EADDRNOTAVAIL',
  'CONNECT_TIMEOUT', 'CONNECTION_CLOSED', 'CONNECTION_ENDED', 'CONNECTION_DESTROYED',
  // Starting up or shutting down, ended by an administrator, crashed, dropped, full.
  '57P01', '57P02', '57P03', '57P05', '53300',
])

/** The first error of the chain of causes that has a code of PostgreSQL, the driver or the operating system. */
const coded = (error: unknown): { code: string; message: string } | undefined => {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth += 1) {
    const { code } = at as { code?: unknown }
    if (typeof code === 'string') return { code, message: messageOf(at) }
    if (at instanceof AggregateError) {
      const inner: unknown = at.errors.find((one: unknown) => coded(one) !== undefined)
      if (inner !== undefined) return coded(inner)
    }
  }
  return undefined
}

/** PostgreSQL's five characters (or the driver's name) for what went wrong, found through what drizzle wraps around it. */
export const sqlStateOf = (error: unknown): string | undefined => coded(error)?.code

/** Whether a call to the catalog failed with this error, as it comes from the driver. */
export const isCatalogError = (error: unknown): boolean => error instanceof DrizzleQueryError || error instanceof postgres.PostgresError

/** Why a call to the catalog failed, for a log: not drizzle's own text, which lists the values of the query. */
export const catalogReason = (error: unknown): string => redact(error instanceof BackupdError ? error.message : (coded(error)?.message ?? messageOf(error)))

/** Whether the catalog could not be reached, so that the same call may succeed later. */
export const isUnreachable = (error: unknown): boolean => {
  if (error instanceof BackupdError) return error.code === 'catalog.unreachable'
  const code = sqlStateOf(error)
  return code !== undefined && (gone.has(code) || code.startsWith('08'))
}

/**
 * What a failed call to the catalog means, as one of ours: `catalog.unreachable` (retryable), `catalog.auth`, `catalog.no_database`,
 * `catalog.no_rights` or `catalog.failed`. `where` names the catalog without secrets. Drizzle's own text is left out, because it
 * lists the values of the query.
 */
export const catalogFailure = (error: unknown, where: string): BackupdError => {
  if (error instanceof BackupdError) return error
  const found = coded(error)
  const message = redact(found?.message ?? messageOf(error))
  const about = { kind: 'configuration', cause: error, details: { catalog: where, sqlstate: found?.code } } as const
  switch (found?.code) {
    case '28P01':
    case '28000':
      return new BackupdError('catalog.auth', `the catalog ${where} does not let us in: ${message}`, {
        ...about, hint: 'Check user and password in BACKUPD_DATABASE_URL, and the server\'s pg_hba.conf.',
      })
    case '3D000':
      return new BackupdError('catalog.no_database', `the catalog ${where} is not there: ${message}`, {
        ...about, hint: 'Create the database, or correct BACKUPD_DATABASE_URL.',
      })
    case '42501':
    case '3F000':
      return new BackupdError('catalog.no_rights', `no right to do this in the catalog ${where}: ${message}`, {
        ...about,
        hint: 'Grant the role CREATE on the schema, or let it own the tables that another application made there.',
      })
  }
  if (isUnreachable(error)) {
    return new BackupdError('catalog.unreachable', `the catalog ${where} cannot be reached: ${message}`, {
      ...about, retryable: true, hint: 'Check that the server runs and that BACKUPD_DATABASE_URL names it.',
    })
  }
  // Deadlocks, a lack of room, and whatever else the server may have got over the next time.
  const retryable = /^(40|53|55|57|58|XX)/.test(found?.code ?? '')
  return new BackupdError('catalog.failed', `the catalog ${where} failed: ${message}`, { ...about, retryable })
}
