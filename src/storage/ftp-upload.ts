import { once } from 'node:events'
import { Readable } from 'node:stream'
import { TLSSocket } from 'node:tls'
import { throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import { hasCode, storageError } from './failure.js'
import { sizeOf } from './ftp-files.js'
import { ftpFailure, lateReason, type FtpPool, type FtpSession } from './ftp-session.js'
import { tailOf, type Tail } from './ftp-tail.js'
import { silence } from './resume.js'
import { retryClock } from './retry.js'
import type { ByteSource } from './storage.js'
import { linkedAbort, sleep, within } from './wait.js'

// Unconfirmed bytes of one upload that are kept, for a connection that breaks.
const keep = 16 * 1024 * 1024
const askAgain = 10

export interface FtpUpload {
  pool: FtpPool
  /** Of the new file. */
  path: string
  retryFor: number
  signal: AbortSignal
  log: Log
}

const store = async ({ client, at }: FtpSession, path: string, offset: number, content: AsyncIterable<Buffer>): Promise<void> => {
  const prepare = client.prepareTransfer
  if (offset > 0) {
    client.prepareTransfer = async (ftp) => {
      const reply = await prepare(ftp)
      // With STOR, not APPE: bytes that an older connection still delivers then land where they belong.
      await client.send(`REST ${offset}`)
      return reply
    }
  }
  const body = async function* (): AsyncGenerator<Buffer, void, undefined> {
    let sent = false
    for await (const block of content) {
      sent ||= block.length > 0
      yield block
    }
    // Ending before the server has done its part of the handshake breaks the session.
    if (!sent && client.ftp.dataSocket instanceof TLSSocket) await Promise.race([once(client.ftp.dataSocket, 'session'), sleep(200, AbortSignal.timeout(1_000))])
  }
  const readable = Readable.from(body(), { objectMode: false, highWaterMark: 1024 * 1024 })
  readable.on('error', () => undefined)
  try {
    await client.uploadFrom(readable, at(path))
  } finally {
    client.prepareTransfer = prepare
  }
}

// The size of the growing file, asked on a second connection, tells what need not be kept any longer.
const confirm = async ({ pool, path, log }: FtpUpload, tail: Tail, signal: AbortSignal): Promise<void> => {
  let asking: FtpSession | undefined
  let grown = Date.now()
  try {
    for (;;) {
      const since = Date.now()
      await within(tail.filled(), { signal })
      // The time until there was something to ask about is none of the server's.
      grown += Date.now() - since
      const before = tail.start()
      try {
        asking ??= await pool.take(signal)
        const size = await within(sizeOf(asking, path), { signal })
        if (size === undefined) return tail.unconfirmed()
        tail.confirm(size)
      } catch (error) {
        asking?.close()
        asking = undefined
        throwIfAborted(signal)
        if (hasCode(ftpFailure(error, path), 'storage.auth', 'storage.throttled', 'storage.unavailable')) {
          log.debug({ err: error }, 'no second FTP connection to confirm an upload with')
          return tail.unconfirmed()
        }
      }
      if (tail.start() > before || tail.end() - before < keep) grown = Date.now()
      if (tail.end() - tail.start() >= keep / 4) await sleep(askAgain, signal)
      if (Date.now() - grown > silence.limit) throw storageError('storage.timeout', `write of ${path}: the server takes no more bytes`)
    }
  } finally {
    if (asking !== undefined) pool.give(asking)
  }
}

const attempt = async (to: FtpUpload, tail: Tail, again: boolean, reached: (offset: number) => void): Promise<void> => {
  const { pool, path, signal } = to
  const session = await pool.take(signal)
  const stop = linkedAbort(signal)
  const watch = confirm(to, tail, stop.signal)
  watch.catch(() => undefined)
  const upload = async (): Promise<void> => {
    const there = again ? await sizeOf(session, path) : undefined
    const from = there ?? 0
    if (from < tail.start() || from > tail.end()) {
      throw storageError('storage.incomplete', `write of ${path}: the connection broke and the server has ${from} bytes, of which those from ${tail.start()} on could be sent again`, { retryable: false })
    }
    reached(from)
    tail.confirm(from)
    if (!(tail.ended() && there === tail.end())) await store(session, path, from, tail.from(from))
    const size = await sizeOf(session, path)
    if (size !== tail.end()) throw storageError('storage.incomplete', `write of ${path}: the server has ${size ?? 'none'} of ${tail.end()} bytes`)
  }
  try {
    await within(Promise.race([upload(), watch.then(() => new Promise<never>(() => undefined))]), { signal })
    pool.give(session)
  } catch (error) {
    const failure = tail.failure() === undefined && !signal.aborted ? ftpFailure(await lateReason(session, error), `write of ${path}`) : error
    session.close()
    throw failure
  } finally {
    stop.abort(new Error('the attempt is over'))
    stop.release()
  }
}

/** Sends all of `source` into one file, over as many connections as it takes. Resolves to its size, once the server has said the same. */
export const uploadToFtp = async (to: FtpUpload, source: ByteSource): Promise<number> => {
  const { path, retryFor, signal, log } = to
  const tail = tailOf(source, keep, signal)
  const clock = retryClock({ retryFor, signal, log, what: `write of ${path}` })
  let confirmed = 0
  const reached = (offset: number): void => {
    if (offset > confirmed) clock.progress()
    confirmed = Math.max(confirmed, offset)
  }
  try {
    for (let again = false; ; again = true) {
      try {
        await attempt(to, tail, again, reached)
        return tail.end()
      } catch (error) {
        const broken = tail.failure()
        if (broken !== undefined) throw broken.error
        await clock.failed(error)
      }
    }
  } finally {
    tail.close()
  }
}
