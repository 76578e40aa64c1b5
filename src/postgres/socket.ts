import { existsSync, readFileSync } from 'node:fs'
import { connect, isIP, type Socket } from 'node:net'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls, rootCertificates, type ConnectionOptions } from 'node:tls'
import { BackupdError, messageOf } from '../errors.js'
import { connectTimeout, describeConnection, isSocket, type Connection, type SslMode } from './connection.js'

/** How one attempt speaks: never with TLS, with it when the server can, or with it only. */
export type Encryption = 'plain' | 'if-offered' | 'always'

/** sslmode as libpq reads it, where `sslrootcert=system` raises the default. */
export const sslMode = ({ options }: Connection): SslMode =>
  (options['sslmode'] as SslMode | undefined) ?? (options['sslrootcert'] === 'system' ? 'verify-full' : 'prefer')

/** The attempts of a mode, in order (PostgreSQL manual, "SSL Mode Descriptions"). */
export const attempts = (connection: Connection): Encryption[] => {
  if (isSocket(connection)) return ['plain']
  const mode = sslMode(connection)
  if (mode === 'disable') return ['plain']
  if (mode === 'allow') return ['plain', 'always']
  return mode === 'prefer' ? ['if-offered', 'plain'] : ['always']
}

const tlsFailure = (connection: Connection, reason: string, hint: string, cause?: unknown): BackupdError =>
  new BackupdError('source.tls', `cannot open a TLS connection to ${describeConnection(connection)}: ${reason}`, { kind: 'configuration', hint, cause })

const readPem = (connection: Connection, option: string, fallback: string): string | undefined => {
  const given = connection.options[option]
  const path = given ?? join(homedir(), '.postgresql', fallback)
  if (given === undefined && !existsSync(path)) return undefined
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw tlsFailure(connection, `${option}: ${messageOf(error)}`, `Correct ${option} in the connection URL.`, error)
  }
}

// libpq's rules: `require` checks the chain only when a root certificate is there, `verify-ca` always, `verify-full` the name too.
const tlsOptions = (connection: Connection): ConnectionOptions => {
  const mode = sslMode(connection)
  const verifying = mode === 'verify-ca' || mode === 'verify-full'
  const system = connection.options['sslrootcert'] === 'system'
  const ca = system ? rootCertificates.join('\n') : readPem(connection, 'sslrootcert', 'root.crt')
  if (verifying && ca === undefined) {
    throw tlsFailure(connection, 'there is no root certificate to check the server with', 'Name one with sslrootcert=/path/root.crt, or sslrootcert=system.')
  }
  const cert = readPem(connection, 'sslcert', 'postgresql.crt')
  const key = cert === undefined ? undefined : readPem(connection, 'sslkey', 'postgresql.key')
  const crl = verifying ? readPem(connection, 'sslcrl', 'root.crl') : undefined
  return {
    host: connection.host,
    ...(isIP(connection.host) === 0 ? { servername: connection.host } : {}),
    minVersion: 'TLSv1.2',
    rejectUnauthorized: verifying || (mode === 'require' && ca !== undefined),
    ...(mode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
    ...(crl === undefined ? {} : { crl }),
  }
}

const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

const once = (socket: Socket, event: string): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const settle = (act: () => void) => {
      socket.off(event, done)
      socket.off('error', failed)
      socket.off('close', closed)
      act()
    }
    const done = (value: unknown) => settle(() => resolve(value))
    const failed = (error: Error) => settle(() => reject(error))
    const closed = () => settle(() => reject(Object.assign(new Error('the server closed the connection'), { code: 'ECONNRESET' })))
    socket.on(event, done)
    socket.on('error', failed)
    socket.on('close', closed)
  })

/**
 * A connected socket to the server, with TLS as `encryption` and the connection's sslmode ask for, ready for the startup message.
 * Fails with `source.tls` or the network's own error.
 */
export const openSocket = async (connection: Connection, encryption: Encryption, signal: AbortSignal): Promise<Socket> => {
  const { host, port } = connection
  const socket = isSocket(connection) ? connect({ path: join(host, `.s.PGSQL.${port}`) }) : connect({ host, port, noDelay: true })
  const abort = () => void socket.destroy(Object.assign(new Error('stopped waiting'), { code: 'ETIMEDOUT' }))
  const limit = AbortSignal.any([signal, AbortSignal.timeout(connectTimeout(connection) * 1000)])
  limit.addEventListener('abort', abort)
  try {
    await once(socket, 'connect')
    if (encryption === 'plain') return socket
    socket.write(SSL_REQUEST)
    const answer = (await once(socket, 'data')) as Buffer
    // One byte and no more: anything behind it was not protected and would be taken for the server's encrypted words.
    if (answer.length !== 1) throw tlsFailure(connection, 'the server sent data before encryption began', 'Check what is between here and the server.')
    if (answer[0] === 'N'.charCodeAt(0) && encryption === 'if-offered') return socket
    if (answer[0] !== 'S'.charCodeAt(0)) {
      throw tlsFailure(connection, 'the server does not support TLS', 'Turn ssl on in the server, or set sslmode=prefer or disable.')
    }
    const secure = connectTls({ ...tlsOptions(connection), socket })
    try {
      await once(secure, 'secureConnect')
    } catch (error) {
      throw tlsFailure(connection, messageOf(error), 'Check sslmode, sslrootcert and the name in the server\'s certificate.', error)
    }
    return secure
  } catch (error) {
    socket.on('error', () => undefined)
    socket.destroy()
    throw error
  } finally {
    limit.removeEventListener('abort', abort)
  }
}
