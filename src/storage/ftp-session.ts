import { readFile } from 'node:fs/promises'
import type { Client, FTPError } from 'basic-ftp'
import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import type { Secret } from '../secret.js'
import { hasCode, storageError, unknownFailure, type StorageCode } from './failure.js'
import { silence } from './resume.js'
import { within } from './wait.js'

export interface FtpLogin {
  host: string
  port: number
  username: string
  password?: Secret | undefined
  tls: 'explicit' | 'implicit' | 'none'
  ca_path?: string | undefined
}

/** One control connection, logged in. One command at a time. */
export interface FtpSession {
  client: Client
  /** `path` from where the login landed, unless it is absolute. */
  at(path: string): string
  close(): void
}

/** The reply behind the error, when the server gave one. */
export const replyOf = (error: unknown): FTPError | undefined =>
  error instanceof Error && error.name === 'FTPError' ? (error as FTPError) : undefined

// Reply codes of RFC 959, RFC 2228 (TLS) and RFC 3659.
const replies: Record<number, StorageCode> = {
  421: 'storage.unavailable', 425: 'storage.connection_lost', 426: 'storage.connection_lost', 430: 'storage.auth', 431: 'storage.tls', 434: 'storage.unreachable',
  450: 'storage.unavailable', 451: 'storage.unavailable', 452: 'storage.disk_full', 500: 'storage.unsupported', 501: 'storage.rejected', 502: 'storage.unsupported',
  503: 'storage.unsupported', 504: 'storage.unsupported', 521: 'storage.denied', 522: 'storage.tls', 530: 'storage.auth', 532: 'storage.auth', 533: 'storage.tls',
  534: 'storage.tls', 535: 'storage.tls', 536: 'storage.tls', 550: 'storage.denied', 552: 'storage.disk_full', 553: 'storage.denied',
}

// One code stands for many causes (550: missing, denied, full), which only the text tells apart, where the server gives one.
const classOf = ({ code, message }: FTPError): StorageCode => {
  if (/no such|not found|does not exist/i.test(message)) return 'storage.not_found'
  // vsftpd has only the last of these for every failed write, and hardly ever another reason.
  if (/no space|quota|disk full|insufficient storage|failure writing to local file/i.test(message)) return 'storage.disk_full'
  if (/read-only/i.test(message)) return 'storage.read_only'
  if (code === 530 && /too many|maximum|limit/i.test(message)) return 'storage.throttled'
  if ((code === 530 || code === 550) && /\b(ssl|tls|encrypt)/i.test(message)) return 'storage.tls'
  if (code === 451 && /restart|append/i.test(message)) return 'storage.unsupported'
  return replies[code] ?? (code < 500 ? 'storage.unavailable' : 'storage.rejected')
}

/** What basic-ftp or the server reported, as one of our errors. */
export const ftpFailure = (error: unknown, what: string): BackupdError => {
  if (error instanceof BackupdError) return error
  const message = messageOf(error)
  const say = (code: StorageCode, hint?: string): BackupdError =>
    storageError(code, `${what}: ${message}`, { cause: error, ...(hint === undefined ? {} : { hint }) })
  const reply = replyOf(error)
  if (reply !== undefined) {
    const code = classOf(reply)
    if (code === 'storage.tls') return say(code, 'The server does not take it this way: set tls to explicit, implicit or none, as it wants.')
    if (code === 'storage.unsupported' && /restart|append/i.test(message)) return say(code, 'Let the server continue uploads (ProFTPD: AllowStoreRestart on); a broken connection cannot be survived without.')
    return say(code)
  }
  if (/Timeout/.test(message)) return say('storage.timeout')
  if (/FIN packet|closed connection|[Cc]lient is closed|closed client|None of the available transfer/.test(message)) return say('storage.connection_lost')
  const found = unknownFailure(error, what)
  // Once the control connection is trusted, TLS trouble on a data connection is one that was cut.
  if (found.code === 'storage.tls' && /data socket|data connection/.test(message)) return say('storage.connection_lost')
  return found.code === 'storage.tls' ? say('storage.tls', 'The server’s certificate is not trusted: name the file of its authority in ca_path, or correct host or certificate.') : found
}

/**
 * A server that refuses or breaks off a transfer resets the data connection, and says why on the other one a moment later.
 * basic-ftp would close that one at once; this leaves it open for the reason.
 */
export const lateReason = async (session: FtpSession, error: unknown): Promise<unknown> => {
  if (replyOf(error) !== undefined || session.client.closed || !/data socket|premature close|EPIPE|ECONNRESET/i.test(messageOf(error))) return error
  const said = session.client.ftp.handle(undefined as never, (reply, task) => task.resolve(reply as never))
  const reason = await within(said, { ms: Math.min(2_000, silence.limit), timeout: () => new Error('nothing') }).catch(() => undefined)
  return reason !== undefined && replyOf(reason) !== undefined ? reason : error
}

const secureOptions = async ({ host, ca_path: path }: FtpLogin): Promise<Record<string, unknown>> => {
  if (path === undefined) return { host }
  try {
    return { host, ca: await readFile(path) }
  } catch (error) {
    throw storageError('storage.config_invalid', `the certificates of ca_path cannot be read: ${messageOf(error)}`, { cause: error })
  }
}

const logIn = async (client: Client, login: FtpLogin): Promise<string> => {
  const options = await secureOptions(login)
  if (login.tls === 'implicit') await client.connectImplicitTLS(login.host, login.port, options)
  else await client.connect(login.host, login.port)
  if (login.tls === 'explicit') {
    try {
      await client.useTLS(options)
    } catch (error) {
      if (replyOf(error) === undefined) throw error
      throw storageError('storage.tls', `the server does not offer TLS: ${messageOf(error)}`, { cause: error, hint: 'Set tls to implicit if it listens for that, or to none if everybody may read along.' })
    }
  }
  await client.sendIgnoringError('OPTS UTF8 ON')
  await client.login(login.username, login.password?.reveal() ?? '')
  await client.useDefaultSettings()
  return client.pwd()
}

/** Connects and logs in. A server that says nothing for `silence.limit` is given up. */
export const openFtp = async (login: FtpLogin, signal: AbortSignal): Promise<FtpSession> => {
  const { Client } = await import('basic-ftp')
  const what = `login to ${login.username}@${login.host}:${login.port}`
  // The library grants the time twice to a transfer that waited for us.
  const client = new Client(Math.max(1, Math.floor(silence.limit / 2)))
  const { ftp } = client
  const closeWithError = ftp.closeWithError.bind(ftp)
  ftp.closeWithError = (error: Error) => {
    if (!error.message.endsWith('(data socket)') || error.message.startsWith('Timeout')) closeWithError(error)
  }
  const stuck = new AbortController()
  let heard = -1
  let since = Date.now()
  // The library has no limit of its own for the handshake of TLS.
  const watch = setInterval(() => {
    const { bytesRead, bytesWritten } = ftp.socket
    if (bytesRead + bytesWritten !== heard) since = Date.now()
    else if (Date.now() - since >= silence.limit) stuck.abort(storageError('storage.timeout', `${what}: no answer`))
    heard = bytesRead + bytesWritten
  }, Math.max(1, Math.floor(silence.limit / 8)))
  try {
    const home = await within(within(logIn(client, login), { signal: stuck.signal }), { signal })
    return { client, at: (path) => (path.startsWith('/') ? path : `${home.replace(/\/$/, '')}/${path}`), close: () => client.close() }
  } catch (error) {
    client.close()
    throw ftpFailure(error, what)
  } finally {
    clearInterval(watch)
  }
}

export interface FtpPool {
  /** Takes an idle connection or opens one. It must be given back or closed. */
  take(signal: AbortSignal): Promise<FtpSession>
  /** Only after a command or transfer that ended well, or was refused by a reply. */
  give(session: FtpSession): void
  /** Runs commands on a connection of its own; a failure is one of our errors. */
  use<T>(what: string, signal: AbortSignal, action: (session: FtpSession) => Promise<T>): Promise<T>
  close(): void
}

const keepIdle = 4
// Shorter than any server's idle time, so that a connection at hand is one that works.
const idleFor = 10_000

/** Connections to one server, as many as there is work at the same time. */
export const ftpPool = (login: FtpLogin): FtpPool => {
  const idle = new Map<FtpSession, NodeJS.Timeout>()
  let closed = false
  const discard = (session: FtpSession): void => {
    clearTimeout(idle.get(session))
    idle.delete(session)
    session.close()
  }
  const take = async (signal: AbortSignal): Promise<FtpSession> => {
    throwIfAborted(signal)
    if (closed) throw storageError('storage.failed', 'the storage was closed')
    for (const [session, timer] of idle) {
      clearTimeout(timer)
      idle.delete(session)
      if (!session.client.closed) return session
    }
    return openFtp(login, signal)
  }
  const give = (session: FtpSession): void => {
    if (closed || session.client.closed || idle.size >= keepIdle) return session.close()
    idle.set(session, setTimeout(() => discard(session), idleFor).unref())
  }
  const use = async <T>(what: string, signal: AbortSignal, action: (session: FtpSession) => Promise<T>): Promise<T> => {
    const session = await take(signal)
    let usable = false
    try {
      const result = await within(action(session), { signal })
      usable = true
      return result
    } catch (error) {
      const failure = ftpFailure(error, what)
      usable = replyOf(error) !== undefined && !hasCode(failure, 'storage.unavailable')
      throw failure
    } finally {
      if (usable) give(session)
      else session.close()
    }
  }
  return {
    take, give, use,
    close: () => {
      closed = true
      for (const session of [...idle.keys()]) discard(session)
    },
  }
}
