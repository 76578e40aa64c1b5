import { PassThrough } from 'node:stream'
import { z } from 'zod'
import { storageError } from './failure.js'
import { oneOf, text, wholeNumber } from './fields.js'
import { sizeOf, touched, ftpFiles } from './ftp-files.js'
import { ftpFailure, ftpPool, lateReason, type FtpLogin, type FtpSession } from './ftp-session.js'
import { uploadToFtp } from './ftp-upload.js'
import { remoteTree } from './remote-tree.js'
import { readWithResume, type OpenRange, type Range } from './resume.js'
import type { StorageAdapter, StorageBackend, StorageContext } from './storage.js'
import { within } from './wait.js'

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

const openFtpStorage = (config: FtpConfig, { log, retryFor }: StorageContext): StorageAdapter => {
  const port = config.port ?? (config.tls === 'implicit' ? 990 : 21)
  const pool = ftpPool({ ...config, port })
  const concerns = config.tls === 'none' ? ['FTP without TLS: the password and every byte can be read and changed on the way; set tls to explicit'] : []
  for (const concern of concerns) log.warn({ host: config.host }, concern)

  const tree = remoteTree(ftpFiles(pool), { base: config.remote_path ?? '', retryFor, log })

  const write: StorageAdapter['write'] = async (key, source, { signal }) => {
    const partial = await tree.newPartial(signal)
    try {
      const size = await uploadToFtp({ pool, path: partial, retryFor, signal, log }, source)
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
    concerns,
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
  leastRights: 'an account that sees one folder only, over TLS only',
  open: async (config, context) => openFtpStorage(config as unknown as FtpConfig, context),
}
