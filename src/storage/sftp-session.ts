import { createHash, timingSafeEqual } from 'node:crypto'
import { once, setMaxListeners } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import type SftpClient from 'ssh2-sftp-client'
import { BackupdError, messageOf } from '../errors.js'
import type { Log } from '../log.js'
import { Secret } from '../secret.js'
import { storageError, unknownFailure, type StorageCode } from './failure.js'
import { silence } from './resume.js'
import { within } from './wait.js'

export type Sftp = Awaited<ReturnType<SftpClient['connect']>>

/** How a session is opened; secrets wrapped. */
export interface SftpLogin {
  host: string
  port: number
  username: string
  password?: Secret | undefined
  private_key?: Secret | undefined
  private_key_path?: string | undefined
  passphrase?: Secret | undefined
  host_key_sha256?: string | undefined
}

/** One SSH connection with its SFTP channel. */
export interface SftpSession {
  sftp: Sftp
  /** Aborted, with the reason, once the connection is gone. */
  gone: AbortSignal
  close(): void
}

// Status codes of draft-ietf-secsh-filexfer-02 (version 3) and, from 9 on, of -13, which some servers send all the same.
const statusCodes: Record<number, StorageCode> = {
  2: 'storage.not_found', 3: 'storage.denied', 6: 'storage.connection_lost', 7: 'storage.connection_lost', 8: 'storage.unsupported',
  10: 'storage.not_found', 12: 'storage.read_only', 14: 'storage.disk_full', 15: 'storage.disk_full',
}

/** What ssh2 or the server reported, as one of our errors. */
export const sftpFailure = (error: unknown, what: string): BackupdError => {
  if (error instanceof BackupdError) return error
  const { code, level } = error as { code?: unknown; level?: unknown }
  const say = (found: StorageCode): BackupdError => storageError(found, `${what}: ${messageOf(error)}`, { cause: error })
  if (typeof code === 'number' && statusCodes[code] !== undefined) return say(statusCodes[code])
  if (level === 'client-authentication') return say('storage.auth')
  if (level === 'client-timeout') return say('storage.timeout')
  if (/No response from server|Not connected|Connection lost|Channel|Unexpected (end|close)|ended|closed|Keepalive/i.test(messageOf(error))) return say('storage.connection_lost')
  return unknownFailure(error, what)
}

/** As `ssh-keygen -l` prints it: `SHA256:` and the unpadded base64 of the hash of the key. */
const fingerprintOf = (key: Buffer): string => `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`

const samePrint = (a: string, b: string): boolean => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b))

/** Why the host key is not to be trusted; undefined when it is one of those pinned (separated by commas or spaces). */
const hostKeyProblem = (key: Buffer, { host, port, host_key_sha256: pinned }: SftpLogin): BackupdError | undefined => {
  const seen = fingerprintOf(key)
  if (pinned === undefined) {
    return new BackupdError('storage.host_key_unknown', `the key of ${host}:${port} is not known: ${seen}`, {
      kind: 'configuration',
      hint: `Compare it with what the server’s owner says (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then add --set host_key_sha256=${seen} to the storage.`,
      details: { fingerprint: seen },
    })
  }
  const known = pinned.split(/[\s,]+/).filter((print) => print !== '').map((print) => (print.startsWith('SHA256:') ? print : `SHA256:${print}`).replace(/=+$/, ''))
  if (known.some((print) => samePrint(print, seen))) return undefined
  return storageError('storage.host_key', `the key of ${host}:${port} is ${seen}, not the one expected`, { details: { fingerprint: seen } })
}

const credentials = async (login: SftpLogin): Promise<Record<string, unknown>> => {
  const { private_key_path: path, passphrase, password } = login
  let key = login.private_key
  if (key === undefined && path !== undefined) {
    try {
      key = new Secret(await readFile(path, 'utf8'))
    } catch (error) {
      throw storageError('storage.config_invalid', `the private key of private_key_path cannot be read: ${messageOf(error)}`, { cause: error })
    }
  }
  const agent = key === undefined && password === undefined ? process.env['SSH_AUTH_SOCK'] : undefined
  if (key === undefined && password === undefined && agent === undefined) {
    throw storageError('storage.config_invalid', 'there is nothing to log in with', { hint: 'Set password, private_key or private_key_path, or start with SSH_AUTH_SOCK of an agent.' })
  }
  return {
    ...(password === undefined ? {} : { password: password.reveal(), tryKeyboard: true }),
    ...(key === undefined ? {} : { privateKey: key.reveal() }),
    ...(passphrase === undefined ? {} : { passphrase: passphrase.reveal() }),
    ...(agent === undefined ? {} : { agent }),
  }
}

const openSocket = async ({ host, port }: SftpLogin, signal: AbortSignal): Promise<Socket> => {
  const what = `connection to ${host}:${port}`
  const socket = connect({ host, port })
  try {
    await within(once(socket, 'connect'), { signal, ms: silence.limit, timeout: () => storageError('storage.timeout', `${what}: no answer`) })
  } catch (error) {
    socket.destroy()
    throw unknownFailure(error, what)
  }
  // ssh2 writes small packets; with Nagle's algorithm each waits for the answer to the one before (1.4 MB/s instead of 60).
  socket.setNoDelay(true)
  return socket
}

interface RawClient {
  on(event: 'keyboard-interactive', listener: (name: string, text: string, language: string, prompts: unknown[], answer: (answers: string[]) => void) => void): void
}

/** Opens a session: TCP, host key, login, SFTP channel. Fails with our errors; a lost session shows in `gone`. */
export const openSession = async (login: SftpLogin, log: Log, signal: AbortSignal): Promise<SftpSession> => {
  const secrets = await credentials(login)
  const { default: Client } = await import('ssh2-sftp-client')
  const what = `login to ${login.username}@${login.host}:${login.port}`
  const gone = new AbortController()
  setMaxListeners(0, gone.signal)
  const lose = (error: unknown): void => {
    if (!gone.signal.aborted) gone.abort(sftpFailure(error, what))
  }
  const socket = await openSocket(login, signal)
  socket.setTimeout(silence.limit, () => socket.destroy(storageError('storage.timeout', `${what}: no answer`)))
  let seen: unknown
  const client = new Client('backupd', { error: (error: unknown) => void (seen = error), end: () => undefined, close: () => undefined })
  client.on('error', (error: unknown) => {
    seen = error
    lose(error)
  })
  socket.once('close', () => lose(new Error('Connection lost')))
  const { password } = login
  // Some servers take a password only as the answer to a question.
  if (password !== undefined) {
    ;(client as unknown as { client: RawClient }).client.on('keyboard-interactive', (_name, _text, _language, prompts, answer) => answer(prompts.map(() => password.reveal())))
  }
  let refused: BackupdError | undefined
  const close = (): void => {
    lose(new Error('Connection lost: closed by us'))
    socket.destroy()
  }
  const options = {
    sock: socket,
    username: login.username,
    ...secrets,
    // Logging in takes many round trips; silence between them counts, not how long they take together.
    readyTimeout: 0,
    // A connection whose other end is silent for three of these counts as lost.
    keepaliveInterval: Math.max(1, Math.floor(silence.limit / 4)),
    keepaliveCountMax: 3,
    hostVerifier: (key: Buffer): boolean => {
      refused = hostKeyProblem(key, login)
      return refused === undefined
    },
  }
  try {
    const sftp = await within(within(client.connect(options), { signal: gone.signal }), { signal })
    socket.setTimeout(0)
    sftp.on('error', lose)
    sftp.on('close', () => lose(new Error('Connection lost')))
    return { sftp, gone: gone.signal, close }
  } catch (error) {
    close()
    if (refused !== undefined) throw refused
    if (/Cannot parse privateKey|no passphrase|bad passphrase|OpenSSH key/i.test(messageOf(error))) {
      throw storageError('storage.auth', `${what}: ${messageOf(error)}`, { cause: error, hint: 'Check that the private key is complete and that passphrase is its passphrase.' })
    }
    log.debug({ err: error }, 'SFTP login failed')
    throw sftpFailure(seen ?? error, what)
  }
}

/** One request: fails when the server does not answer within `ms`, the session is lost, or `signal` aborts. */
export const request = async <T>(session: SftpSession, signal: AbortSignal, start: (done: (error?: Error | null, value?: T) => void) => void, ms = silence.limit): Promise<T> => {
  const answer = new Promise<T>((resolve, reject) => {
    start((error, value) => (error ? reject(error) : resolve(value as T)))
  })
  const timeout = (): Error => {
    const error = storageError('storage.timeout', `the SFTP server did not answer for ${ms / 1000} s`)
    session.close()
    return error
  }
  return within(within(answer, { signal: session.gone, ms, timeout }), { signal })
}
