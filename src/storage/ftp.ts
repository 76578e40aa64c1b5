import { once } from 'node:events'
import { posix } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { TLSSocket } from 'node:tls'
import { z } from 'zod'
import { messageOf, throwIfAborted } from '../errors.js'
import { hasCode, storageError } from './failure.js'
import { oneOf, text, wholeNumber } from './fields.js'
import { ftpFailure, ftpPool, lateReason, replyOf, type FtpLogin, type FtpSession } from './ftp-session.js'
import { tailOf, type Tail } from './ftp-tail.js'
import { remoteTree, type RemoteEntry, type RemoteFiles } from './remote-tree.js'
import { readWithResume, silence, type OpenRange, type Range } from './resume.js'
import { retryClock } from './retry.js'
import type { ByteSource, StorageAdapter, StorageBackend, StorageContext } from './storage.js'
import { linkedAbort, sleep, within } from './wait.js'

const configSchema = z.looseObject({
  host: text,
  /** Default 21, with implicit TLS 990. */
  port: wholeNumber(1, 65_535).optional(),
  username: text,
  password: text.optional(),
  /** Absolute, or from where the login lands. */
  remote_path: text.optional(),
  tls: oneOf(['explicit', 'implicit', 'none']).default('explicit'),
  /** PEM file of the authority that signed the server's certificate, for one that the system does not trust. */
  ca_path: text.optional(),
})
type FtpConfig = Omit<FtpLogin, 'port'> & { port?: number | undefined; remote_path?: string | undefined }

// Unconfirmed bytes of one upload that are kept, for a connection that breaks.
const keep = 16 * 1024 * 1024
const askEvery = 50

const openStorage = (config: FtpConfig, { log, retryFor }: StorageContext): StorageAdapter => {
  const port = config.port ?? (config.tls === 'implicit' ? 990 : 21)
  const pool = ftpPool({ ...config, port })
  if (config.tls === 'none') log.warn({ host: config.host }, 'FTP without TLS: the password and every byte can be read on the way')

  /** The size of a file; undefined when there is none. */
  const sizeOf = async ({ client, at }: FtpSession, path: string): Promise<number | undefined> => {
    try {
      return await client.size(at(path))
    } catch (error) {
      // vsftpd has one text for every reason.
      if (replyOf(error)?.code === 550 && !/permission|denied/i.test(messageOf(error))) return undefined
      throw error
    }
  }

  const touched = async ({ client, at }: FtpSession, path: string): Promise<Date | undefined> => {
    try {
      return await client.lastMod(at(path))
    } catch (error) {
      if (replyOf(error) !== undefined) return undefined
      throw error
    }
  }

  const files: RemoteFiles = {
    stat: (path, signal) => pool.use(`look at ${path}`, signal, async (session) => {
      const size = await sizeOf(session, path)
      return size === undefined ? undefined : { name: posix.basename(path), kind: 'file', size, modifiedAt: await touched(session, path) }
    }),
    entries: (folder, signal) => pool.use(`list of ${folder}`, signal, async ({ client, at }) => {
      // Names with brackets or stars would be patterns as an argument of the listing.
      const entered = await client.sendIgnoringError(`CWD ${at(folder)}`)
      if (entered.code === 550 && !/permission|denied/i.test(entered.message)) return undefined
      if (entered.code >= 400) await client.send(`CWD ${at(folder)}`)
      return (await client.list()).map(({ name, size, modifiedAt, isFile, isDirectory }): RemoteEntry => ({ name, size, modifiedAt, kind: isFile ? 'file' : isDirectory ? 'folder' : 'other' }))
    }),
    makeFolder: (path, signal) => pool.use(`making the folder ${path}`, signal, async ({ client, at }) => {
      try {
        await client.send(`MKD ${at(path)}`)
      } catch (error) {
        // Servers refuse with the same code when it is there already.
        if (replyOf(error) === undefined || (await client.sendIgnoringError(`CWD ${at(path)}`)).code >= 400) throw error
      }
    }),
    removeFolder: (path, signal) => pool.use(`removal of ${path}`, signal, async ({ client, at }) => (await client.sendIgnoringError(`RMD ${at(path)}`)).code < 400),
    removeFile: (path, signal) => pool.use(`removal of ${path}`, signal, async (session) => {
      try {
        await session.client.send(`DELE ${session.at(path)}`)
      } catch (error) {
        // Refused for what is there, or because it is not?
        if (replyOf(error) === undefined || (await sizeOf(session, path)) !== undefined) throw error
      }
    }),
    rename: (from, to, signal) => pool.use(`naming ${to}`, signal, async (session) => {
      const { client, at } = session
      const rename = async (): Promise<void> => {
        await client.send(`RNFR ${at(from)}`)
        await client.send(`RNTO ${at(to)}`)
      }
      try {
        await rename()
      } catch (error) {
        if (replyOf(error) === undefined || (await sizeOf(session, from)) === undefined) throw error
        if ((await sizeOf(session, to)) === undefined) {
          // vsftpd does not say that the folder has gone meanwhile.
          const folder = await client.sendIgnoringError(`CWD ${at(posix.dirname(to))}`)
          if (folder.code >= 400) throw storageError('storage.not_found', `naming ${to}: the folder is not there`, { cause: error })
          throw error
        }
        // A server that does not let a name be replaced: for a moment there is none.
        await client.send(`DELE ${at(to)}`)
        await rename()
      }
    }),
  }
  const tree = remoteTree(files, { base: config.remote_path ?? '', retryFor, log })

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
    const readable = Readable.from(body(), { objectMode: false, highWaterMark: 512 * 1024 })
    readable.on('error', () => undefined)
    try {
      await client.uploadFrom(readable, at(path))
    } finally {
      client.prepareTransfer = prepare
    }
  }

  // The size of the growing file, asked on a second connection, tells what need not be kept any longer.
  const confirm = async (tail: Tail, path: string, signal: AbortSignal): Promise<void> => {
    let asking: FtpSession | undefined
    let grown = Date.now()
    try {
      for (;;) {
        await sleep(askEvery, signal)
        if (tail.end() - tail.start() < keep / 4) {
          grown = Date.now()
          continue
        }
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
        if (Date.now() - grown > silence.limit) throw storageError('storage.timeout', `write of ${path}: the server takes no more bytes`)
      }
    } finally {
      if (asking !== undefined) pool.give(asking)
    }
  }

  const attempt = async (tail: Tail, path: string, again: boolean, signal: AbortSignal, reached: (offset: number) => void): Promise<void> => {
    const session = await pool.take(signal)
    const stop = linkedAbort(signal)
    const watch = confirm(tail, path, stop.signal)
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

  const fill = async (path: string, source: ByteSource, signal: AbortSignal): Promise<number> => {
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
          await attempt(tail, path, again, signal, reached)
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

  const write: StorageAdapter['write'] = async (key, source, { signal }) => {
    const partial = await tree.newPartial(signal)
    try {
      const size = await fill(partial, source, signal)
      await tree.publish(partial, key, size, signal)
      return { size }
    } catch (error) {
      await tree.discard(partial)
      throw error
    }
  }

  const download = async function* (session: FtpSession, path: string, offset: number, length: number, toEnd: boolean): AsyncGenerator<Uint8Array, void, undefined> {
    const stream = new PassThrough({ highWaterMark: 1024 * 1024 })
    // The iterator throws it; nobody iterates any more when only the reply was lost.
    stream.on('error', () => undefined)
    let got = 0
    const transfer = session.client.downloadTo(stream, session.at(path), offset)
    transfer.catch(async (error: unknown) => {
      stream.destroy(ftpFailure(await lateReason(session, error), `read of ${path}`))
    })
    try {
      // Left open when the last byte was given on, for the reply that is still to come.
      for await (const block of stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        const part = block.subarray(0, length - got)
        got += part.length
        yield part
        if (got === length) break
      }
      if (got === length && toEnd) await transfer
    } finally {
      // Anything but a complete transfer has to be broken off, and the connection with it.
      if (got === length && toEnd) transfer.then(() => pool.give(session), () => session.close())
      else {
        session.close()
        stream.destroy()
      }
    }
  }

  const openRange = async (path: string, { offset, end }: Range, tag: string | undefined, signal: AbortSignal): Promise<OpenRange<string>> => {
    const session = await pool.take(signal)
    try {
      const size = await within(sizeOf(session, path), { signal })
      if (size === undefined) throw storageError('storage.not_found', `read of ${path}: there is no such file`)
      const version = `${size} ${(await within(touched(session, path), { signal }))?.getTime()}`
      if (tag !== undefined && tag !== version) throw storageError('storage.changed', `read of ${path}: it was replaced meanwhile`)
      const last = Math.min(end ?? Infinity, size)
      if (offset < last) return { body: download(session, path, offset, last - offset, last === size), size, tag: version }
      pool.give(session)
      return { body: (async function* () {})(), size, tag: version }
    } catch (error) {
      session.close()
      throw ftpFailure(error, `read of ${path}`)
    }
  }

  const address = `${config.username}@${config.host}${port === (config.tls === 'implicit' ? 990 : 21) ? '' : `:${port}`}`
  return {
    type: 'ftp',
    capabilities: { parallelUpload: false, exactTimes: false, maxObjectSize: 2 ** 63 - 1 },
    location: (key) => `${config.tls === 'none' ? 'ftp' : 'ftps'}://${address}/${tree.pathOf(key).replace(/^\//, '')}`,
    write,
    read: (key, { offset, length, signal }) =>
      readWithResume<string>({ key, offset, length, retryFor, signal, log, open: (range, tag, stop) => openRange(tree.pathOf(key), range, tag, stop), classify: ftpFailure }),
    stat: tree.stat,
    list: tree.list,
    remove: tree.remove,
    sweep: tree.sweep,
    close: async () => pool.close(),
  }
}

/** A folder of an FTP server, over TLS unless `tls` is `none`. Configuration: see `configSchema`. */
export const ftpBackend: StorageBackend = {
  type: 'ftp',
  configSchema,
  secretFields: ['password'],
  open: async (config, context) => openStorage(config as unknown as FtpConfig, context),
}
