import type { Socket } from 'node:net'
import type postgres from 'postgres'
import { abortError, BackupdError, throwIfAborted } from '../errors.js'
import { connectTimeout, type Connection } from './connection.js'
import { openPool } from './driver.js'
import { sourceError } from './failures.js'
import { attempts, openSocket, type Encryption } from './socket.js'

/** A pool of connections to one database; tagged templates are statements. */
export interface Sql {
  readonly query: postgres.Sql
  readonly connection: Connection
  /** Closes every connection; never throws. */
  close(): Promise<void>
}

export interface OpenOptions {
  signal: AbortSignal
  /** Connections at most, default 1. */
  max?: number
  /** What the server shows for it, default `backupd`. */
  applicationName?: string
}

interface Opened {
  query: postgres.Sql
  /** Ends every connection within `timeout` seconds; never fails. */
  end(timeout: number): Promise<void>
}

const open = (connection: Connection, encryption: Encryption, options: OpenOptions): Opened => {
  const sockets = new Set<Socket>()
  let ended = false
  const track = (socket: Socket): Socket => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    if (ended) socket.destroy()
    return socket
  }
  const { user, password, database, host, port } = connection
  const settings = {
    host, port, database, user,
    username: user,
    password: password?.reveal() ?? '',
    path: '',
    max: options.max ?? 1,
    // Every one is named, so that PG* variables of this process decide nothing.
    ssl: false,
    sslnegotiation: null,
    connect_timeout: connectTimeout(connection),
    idle_timeout: null,
    max_lifetime: null,
    // A proxy may give every statement another connection, where a prepared one is not known.
    prepare: false,
    fetch_types: false,
    onnotice: () => undefined,
    connection: {
      application_name: connection.options['application_name'] ?? options.applicationName ?? 'backupd',
      ...(connection.options['options'] === undefined ? {} : { options: connection.options['options'] }),
    },
    socket: async () => track(await openSocket(connection, encryption, options.signal)),
  }
  const query: postgres.Sql = openPool(settings)
  return {
    query,
    end: async (timeout) => {
      await query.end({ timeout }).catch(() => undefined)
      // The driver only says goodbye to a server whose answer it still waits for, and the open socket keeps the process alive.
      ended = true
      for (const socket of sockets) socket.destroy()
    },
  }
}

// The driver connects again and again when a server hangs up at once, so the first statement has a limit of its own.
const firstAnswer = async (sql: postgres.Sql, connection: Connection, signal: AbortSignal): Promise<void> => {
  const limit = AbortSignal.timeout(connectTimeout(connection) * 1000)
  const either = AbortSignal.any([signal, limit])
  let stop = (): void => undefined
  const stopped = new Promise<never>((_, reject) => {
    stop = () => reject(signal.aborted ? abortError(signal) : Object.assign(new Error('no answer in time'), { code: 'CONNECT_TIMEOUT' }))
    either.addEventListener('abort', stop)
  })
  try {
    throwIfAborted(signal)
    await Promise.race([sql`select 1`, stopped])
  } finally {
    either.removeEventListener('abort', stop)
  }
}

const worthAnotherTry = (error: unknown): boolean =>
  (error instanceof BackupdError && error.code === 'source.tls') || (error as { code?: unknown }).code === '28000'

/**
 * Connects, with libpq's meaning of sslmode, and proves it with one statement. Aborting `signal` closes every connection.
 * Fails with `source.unreachable` (retryable), `source.auth`, `source.no_database`, `source.tls`, `source.busy` or `cancelled`.
 */
export const openSql = async (connection: Connection, options: OpenOptions): Promise<Sql> => {
  let first: unknown
  for (const encryption of attempts(connection)) {
    const { query, end } = open(connection, encryption, options)
    try {
      await firstAnswer(query, connection, options.signal)
      const abort = () => void end(0)
      options.signal.addEventListener('abort', abort)
      const close = async () => {
        options.signal.removeEventListener('abort', abort)
        await end(1)
      }
      return { query, connection, close }
    } catch (error) {
      void end(0)
      throwIfAborted(options.signal)
      first ??= error
      if (!worthAnotherTry(error)) break
    }
  }
  throw sourceError(first, connection)
}

/** Runs `work` on a fresh connection and closes it; a failure of the driver becomes one of our codes, an abort `cancelled`. */
export const withSql = async <T>(connection: Connection, options: OpenOptions, work: (sql: postgres.Sql) => Promise<T>): Promise<T> => {
  const sql = await openSql(connection, options)
  try {
    return await work(sql.query)
  } catch (error) {
    throwIfAborted(options.signal)
    throw sourceError(error, connection)
  } finally {
    await sql.close()
  }
}

