import type { ChildProcess } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { BackupdError, abortError, messageOf, throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import { Secret, redact } from '../secret.js'
import { boundLog, dropStalePid, isAlive, logTail, passwordOf, prepareFiles, serverPid, sweepLeftovers, type EmbeddedFiles } from './embedded-files.js'
import { dataThere, embeddedRole, launchServer } from './embedded-server.js'

export interface Embedded {
  /** For this process and its children. */
  url: Secret
  /** What may be shown of it. */
  description: string
  /** Leaves the server, and stops it when this was its last user. */
  close(): Promise<void>
}

const database = 'backupd'
const startTimeout = 60_000
const stopTimeout = 20_000
/** Every process that uses the server holds this advisory lock shared; who gets it alone is the last one. */
const usersLock = 0x62616375

interface SocketFolder {
  path: string
  close(): void
}

// A socket's path has room for 107 bytes. A longer one is reached through a descriptor, which works for child processes too.
const openSocketFolder = (run: string): SocketFolder => {
  if (Buffer.byteLength(join(run, '.s.PGSQL.5432')) <= 100) return { path: run, close: () => undefined }
  if (process.platform !== 'linux') {
    throw new BackupdError('catalog.state_dir', `the path of the state directory is too long for a socket: ${run}`, {
      kind: 'configuration', hint: 'Name a shorter one in BACKUPD_STATE_DIR.',
    })
  }
  const fd = openSync(run, 'r')
  return { path: `/proc/${process.pid}/fd/${fd}`, close: () => closeSync(fd) }
}

interface Host {
  files: EmbeddedFiles
  folder: SocketFolder
  password: Secret
}

const connect = (folder: string, password: Secret, name: string, onclose?: () => void): postgres.Sql =>
  postgres({
    host: folder, port: 5432, user: embeddedRole, pass: password.reveal(), database: name,
    max: 1, idle_timeout: 0, max_lifetime: null, connect_timeout: 10, fetch_types: false, onnotice: () => undefined,
    ...(onclose === undefined ? {} : { onclose }),
    connection: { application_name: 'backupd presence' },
  })

const codeOf = (error: unknown): string | undefined => (error as { code?: string }).code

// Not there, going down, coming up, or full: worth another attempt. Anything else is an answer.
const notNow = (error: unknown): boolean =>
  /^(ENOENT|ECONN.*|EPIPE|CONNECT_TIMEOUT|CONNECTION_.*|57P0.|53300)$/.test(codeOf(error) ?? '')

// That the catalog's database is there, and the server takes new connections.
const probe = async ({ folder, password }: Host): Promise<boolean> => {
  const sql = connect(folder.path, password, database)
  try {
    await sql`SELECT 1`
    return true
  } catch (error) {
    if (codeOf(error) === '3D000') return false
    throw error
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/**
 * Joins the users of the server. Rejects when it is going down: the lock may be granted because the one that stops the server was
 * disconnected by that very stop, but a server that is going down takes no new connection.
 */
const enter = async (sql: postgres.Sql, host: Host): Promise<void> => {
  await sql`SELECT pg_advisory_lock_shared(${usersLock})`
  if (await probe(host)) return
  await sql.unsafe(`CREATE DATABASE ${database}`).catch((error: unknown) => {
    // Another process has made it in the meantime.
    if (codeOf(error) !== '42P04' && codeOf(error) !== '23505') throw error
  })
}

/**
 * Leaves the users of the server; true when this was the last one, nobody else is connected and nobody is waiting to join. Until the
 * connection ends nobody can join then.
 */
const leave = async (sql: postgres.Sql): Promise<boolean> => {
  await sql`SELECT pg_advisory_unlock_shared(${usersLock})`
  const [row] = await sql<{ alone: boolean }[]>`SELECT pg_try_advisory_lock(${usersLock}) AS alone`
  if (row?.alone !== true) return false
  const [others] = await sql<{ there: boolean }[]>`
    SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name NOT LIKE 'backupd%')
      OR EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted) AS there`
  return others?.there === false
}

// Somebody else's server is coming up, or processes of one that was killed are not gone yet: both pass.
const lostRace = async (files: EmbeddedFiles): Promise<boolean> =>
  (await logTail(files)).some((line) => /FATAL: {2}(lock file|pre-existing shared memory block|could not (bind|create lock file))/.test(line))

const startFailure = async (files: EmbeddedFiles, last: unknown): Promise<BackupdError> =>
  new BackupdError('catalog.embedded_start', `the embedded catalog in ${files.home} does not start: ${redact(messageOf(last))}`, {
    kind: 'configuration', retryable: true, cause: last,
    hint: codeOf(last) === '28P01' ? `${files.password} is not the file that the catalog was made with; bring that one back.` : `See ${files.log}.`,
    details: { log: (await logTail(files)).map(redact) },
  })

/** Connects to the server and joins its users, starting it as often as needed: others may be stopping or starting it right now. */
const joinServer = async (host: Host, signal: AbortSignal, onclose: () => void): Promise<postgres.Sql> => {
  const { files, folder, password } = host
  const deadline = Date.now() + startTimeout
  let child: ChildProcess | undefined
  let failures = 0
  for (;;) {
    throwIfAborted(signal)
    const sql = connect(folder.path, password, 'postgres', onclose)
    try {
      await enter(sql, host)
      return sql
    } catch (error) {
      await sql.end({ timeout: 1 })
      if (!notNow(error) || Date.now() > deadline) throw await startFailure(files, error)
    }
    const ended = child === undefined || child.exitCode !== null || child.signalCode !== null
    if (ended && (await serverPid(files)) === undefined) {
      if (child !== undefined) {
        failures += (await lostRace(files)) ? 0 : 1
        if (failures === 3) throw await startFailure(files, new Error('it ended at once'))
        await sleep(200)
      }
      await dropStalePid(files)
      child = await launchServer(files, password)
    }
    await sleep(25, undefined, { signal }).catch(() => { throw abortError(signal) })
  }
}

/** Stops the server, at once but cleanly, and waits until it is gone. */
const stopServer = async (files: EmbeddedFiles, log: Log): Promise<void> => {
  const pid = await serverPid(files)
  if (pid === undefined) return
  // The connection stays until the server ends it: with it goes the lock that keeps others from joining.
  process.kill(pid, 'SIGINT')
  for (const deadline = Date.now() + stopTimeout; Date.now() < deadline; await sleep(10)) {
    if (!(await isAlive(pid))) return
  }
  log.warn({ pid }, 'the embedded catalog takes long to stop; it goes on by itself')
}

/** Whether the catalog's own PostgreSQL was ever made. What cannot be seen into counts as made. */
export const embeddedThere = (stateDir: string): Promise<boolean> =>
  stat(join(stateDir, 'catalog', 'pgdata')).then(() => true, (error: unknown) => codeOf(error) !== 'ENOENT' && codeOf(error) !== 'ENOTDIR')

/**
 * The catalog's own PostgreSQL, started when it does not run. It belongs to no process: it outlives the one that started it, others
 * join it, and the last one to leave stops it. Should it die meanwhile, it is started again. Fails with `catalog.embedded_version`,
 * `catalog.embedded_start`, `catalog.embedded_missing`, `catalog.embedded_user` or `catalog.state_dir`, all exit code 4.
 */
export const startEmbedded = async ({ stateDir, log, signal }: { stateDir: string; log: Log; signal: AbortSignal }): Promise<Embedded> => {
  const files = await prepareFiles(stateDir)
  await dataThere(files)
  await sweepLeftovers(files)
  const host: Host = { files, password: await passwordOf(files), folder: openSocketFolder(files.run) }
  const closing = new AbortController()
  let presence: postgres.Sql | undefined
  let rejoining: Promise<void> | undefined

  const rejoin = async (): Promise<void> => {
    while (!closing.signal.aborted) {
      try {
        presence = await joinServer(host, closing.signal, lost)
        return log.warn('the embedded catalog had stopped and was started again')
      } catch (error) {
        if (closing.signal.aborted) return
        log.error({ err: error }, 'the embedded catalog stopped and does not start')
        await sleep(2000, undefined, { signal: closing.signal }).catch(() => undefined)
      }
    }
  }
  // Also called for connections that never were; only the loss of the one that counts matters.
  const lost = (): void => {
    if (closing.signal.aborted || presence === undefined) return
    void presence.end({ timeout: 0 })
    presence = undefined
    rejoining = rejoin()
  }

  try {
    presence = await joinServer(host, signal, lost)
  } catch (error) {
    host.folder.close()
    throw error
  }
  boundLog(files)
  const bounding = setInterval(() => boundLog(files), 600_000).unref()

  const close = async (): Promise<void> => {
    if (closing.signal.aborted) return
    closing.abort()
    clearInterval(bounding)
    await rejoining
    try {
      if (presence !== undefined && (await leave(presence))) await stopServer(files, log)
    } catch (error) {
      log.debug({ err: error }, 'the embedded catalog was gone before it was left')
    } finally {
      await presence?.end({ timeout: 1 })
      host.folder.close()
    }
  }
  const user = encodeURIComponent(embeddedRole)
  const url = new Secret(`postgres://${user}:${host.password.reveal()}@localhost/${database}?host=${encodeURIComponent(host.folder.path)}`)
  return { url, description: `embedded in ${files.home}`, close }
}
