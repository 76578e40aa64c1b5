import { userInfo } from 'node:os'
import { BackupdError } from '../errors.js'
import { Secret } from '../secret.js'

export const sslModes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const
export type SslMode = (typeof sslModes)[number]

/** Where a PostgreSQL database is and how to get in. */
export interface Connection {
  /** Name or address; a folder (starting with `/`) means a Unix socket there. */
  host: string
  port: number
  user: string
  password: Secret | undefined
  database: string
  /** libpq's connection parameters, those of `supportedOptions`. */
  options: Record<string, string>
}

/** Connection parameters taken from a URL's query, as libpq names them. */
export const supportedOptions = [
  'sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'sslcrl', 'options', 'connect_timeout', 'application_name', 'gssencmode', 'channel_binding',
] as const
const inPlace = ['host', 'port', 'user', 'password', 'dbname'] as const

// Without a password, which would be masked as one on its way out.
const example = 'postgres://user@host:5432/database?sslmode=require, with a password as user:password@'
// Debian's libpq looks for the server's socket here when no host is given.
const defaultSocketDir = '/var/run/postgresql'

const invalid = (message: string, hint = `Write it as ${example}`): BackupdError =>
  new BackupdError('source.url_invalid', `the connection URL is not valid: ${message}`, { kind: 'usage', hint })

const decode = (text: string, what: string): string => {
  try {
    const plain = decodeURIComponent(text)
    if (plain.includes('\0')) throw invalid(`its ${what} contains a zero byte`)
    return plain
  } catch (error) {
    if (error instanceof BackupdError) throw error
    throw invalid(`its ${what} has a % that is not followed by two hexadecimal digits`, `Write % as %25 in the ${what}.`)
  }
}

const port = (text: string): number => {
  const number = Number(text)
  if (!/^\d{1,5}$/.test(text) || number < 1 || number > 65_535) throw invalid('its port is not a number from 1 to 65535')
  return number
}

const splitHost = (text: string): { host: string; port: string } => {
  if (text.includes(',')) throw invalid('it names more than one host', 'Name one host; for a cluster, the one whose data is to be backed up.')
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^:[\]]*))(?::(.*))?$/.exec(text)
  if (!match) throw invalid('its host is not a name, an address, or an IPv6 address in brackets')
  return { host: match[1] ?? decode(match[2] ?? '', 'host'), port: match[3] ?? '' }
}

const parseQuery = (query: string): Record<string, string> => {
  const found: Record<string, string> = {}
  for (const pair of query.split('&').filter((text) => text !== '')) {
    const at = pair.indexOf('=')
    if (at < 1) throw invalid('a parameter after the ? has no value')
    // libpq's rule: a + is a plus here, not a space.
    const name = decode(pair.slice(0, at), 'parameter name')
    if (!(supportedOptions as readonly string[]).includes(name) && !(inPlace as readonly string[]).includes(name)) {
      throw invalid(`the parameter ${name} is not supported`, `Supported are ${[...supportedOptions, ...inPlace].join(', ')}.`)
    }
    found[name] = decode(pair.slice(at + 1), name)
  }
  return found
}

const checkOptions = (options: Record<string, string>): void => {
  const { sslmode, connect_timeout: timeout, sslrootcert, channel_binding: binding } = options
  if (sslmode !== undefined && !(sslModes as readonly string[]).includes(sslmode)) throw invalid(`sslmode must be one of ${sslModes.join(', ')}`)
  if (timeout !== undefined && !/^\d{1,6}$/.test(timeout)) throw invalid('connect_timeout must be a number of seconds')
  if (binding === 'require') throw invalid('channel_binding=require is not supported', 'Use sslmode=verify-full instead.')
  // As libpq has it: the system's certificates are trusted for names only, never without checking the name.
  if (sslrootcert === 'system' && sslmode !== undefined && sslmode !== 'verify-full') {
    throw invalid('sslrootcert=system goes only with sslmode=verify-full')
  }
}

const checkPassword = (password: string): Secret | undefined => {
  if (/[\r\n]/.test(password)) throw invalid('its password contains a line break, which a password file cannot hold')
  return password === '' ? undefined : new Secret(password)
}

/**
 * Reads a connection URL in the forms libpq accepts (PostgreSQL manual, "Connection URIs"): Unix sockets as
 * `postgres:///db?host=/dir` or with a percent-encoded folder for a host. Fails with `source.url_invalid`, without the password.
 */
export const parseConnection = (url: string): Connection => {
  const match = /^postgres(?:ql)?:\/\/(?:([^@/]*)@)?([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(url)
  if (!match) throw invalid('it does not start with postgres:// or postgresql://')
  const [, login = '', place = '', path = '', query = ''] = match
  const colon = login.indexOf(':')
  const { host: inQueryHost, port: inQueryPort, user: inQueryUser, password: inQueryPassword, dbname, ...options } = parseQuery(query)
  const authority = splitHost(place)
  const host = inQueryHost ?? authority.host
  if (host.includes(',')) throw invalid('it names more than one host', 'Name one host; for a cluster, the one whose data is to be backed up.')
  const user = inQueryUser ?? decode(colon < 0 ? login : login.slice(0, colon), 'user')
  const password = inQueryPassword ?? (colon < 0 ? '' : decode(login.slice(colon + 1), 'password'))
  checkOptions(options)
  const name = user === '' ? userInfo().username : user
  return {
    host: host === '' ? defaultSocketDir : host,
    port: port(inQueryPort ?? (authority.port === '' ? '5432' : authority.port)),
    user: name,
    password: checkPassword(password),
    database: (dbname ?? decode(path, 'database')) || name,
    options,
  }
}

/** Whether the server is reached through a Unix socket. */
export const isSocket = (connection: Connection): boolean => connection.host.startsWith('/')

/** The connection as a URL without its password, for people. */
export const describeConnection = ({ host, port, user, database, options }: Connection): string => {
  const shown = host.startsWith('/') ? '' : host.includes(':') ? `[${host}]` : host
  const query = Object.entries(host.startsWith('/') ? { host, ...options } : options)
  const text = query.map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll('%2F', '/')}`).join('&')
  const place = host.startsWith('/') && port === 5432 ? '' : `${shown}:${port}`
  return `postgres://${encodeURIComponent(user)}@${place}/${encodeURIComponent(database)}${text === '' ? '' : `?${text}`}`
}

/** The same server and user, another database. */
export const withDatabase = (connection: Connection, database: string): Connection => ({ ...connection, database })

/** Seconds until an attempt to connect is given up; libpq's parameter, default 30, where libpq itself would wait for ever. */
export const connectTimeout = (connection: Connection): number => {
  const seconds = Number(connection.options['connect_timeout'] ?? 0)
  return seconds === 0 ? 30 : Math.max(2, seconds)
}
