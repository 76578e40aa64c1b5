import { BackupdError, messageOf } from '../errors.js'
import { redact } from '../secret.js'
import { describeConnection, type Connection } from './connection.js'

const codeOf = (error: unknown): string => {
  const code = (error as { code?: unknown } | undefined)?.code
  return typeof code === 'string' ? code : ''
}

const network = new Set([
  'ECONNREFUSED', 'ECONNRESET', 'ENOTFOUND', 'EAI_AGAIN', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH', 'EPIPE', 'ENOENT', 'EACCES',
  'CONNECT_TIMEOUT', 'CONNECTION_CLOSED', 'CONNECTION_ENDED', 'CONNECTION_DESTROYED',
])
const tls = /^(CERT_|ERR_TLS_|ERR_SSL_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|ERR_OSSL|EPROTO$)/

/** Whether the connection itself broke, rather than a statement. */
export const isConnectionFailure = (error: unknown): boolean => {
  if (error instanceof BackupdError) return error.code === 'source.unreachable'
  const code = codeOf(error)
  return network.has(code) || code.startsWith('08') || ['57P01', '57P02', '57P03', '53300'].includes(code)
}

/** Turns what the driver threw about `connection` into one of our codes: `source.unreachable`, `.auth`, `.no_database`, `.tls`, `.denied`, `.query`. */
export const sourceError = (error: unknown, connection: Connection): BackupdError => {
  if (error instanceof BackupdError) return error
  const where = describeConnection(connection)
  const code = codeOf(error)
  const reason = redact(messageOf(error))
  const failure = (name: string, message: string, hint: string, options: { kind?: 'configuration'; retryable?: boolean } = {}): BackupdError =>
    new BackupdError(`source.${name}`, message, { ...options, hint, cause: error, ...(code === '' ? {} : { details: { reason: code } }) })

  if (code === '28P01' || code === '28000') {
    const hint = reason.includes('pg_hba.conf')
      ? 'Allow this host, user and database in the server\'s pg_hba.conf, or set sslmode as it asks for.'
      : 'Check the user and the password in the connection URL; write special characters in it as %XX.'
    return failure('auth', `${where} refuses the login: ${reason}`, hint, { kind: 'configuration' })
  }
  if (code === '3D000') {
    return failure('no_database', `${where}: ${reason}`, 'Create the database, or correct its name at the end of the URL.', { kind: 'configuration' })
  }
  if (code === '42501') return failure('denied', `${where}: ${reason}`, 'Grant what is missing to this role, or use another one.', { kind: 'configuration' })
  if (tls.test(code)) {
    return failure('tls', `cannot open a TLS connection to ${where}: ${reason}`, 'Check sslmode, sslrootcert and the name in the server\'s certificate.', {
      kind: 'configuration',
    })
  }
  if (code === '53300') return failure('busy', `${where} has no connection free: ${reason}`, 'Raise max_connections or lower the number of jobs.', { retryable: true })
  if (isConnectionFailure(error)) {
    return failure('unreachable', `cannot reach ${where}: ${reason}`, 'Check that the server runs and that host, port and firewall are right.', { retryable: true })
  }
  return failure('query', `${where}: ${reason}`, 'See the message of the server.')
}
