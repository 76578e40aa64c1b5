import type { Log } from '../log.js'
import { sendChunks } from './chunks.js'
import { storageError } from './failure.js'
import type { OpenRange, Range } from './resume.js'
import { retry } from './retry.js'
import type { Attributes } from './sftp-files.js'
import type { SftpLink } from './sftp-link.js'
import { request, sftpFailure, type SftpSession } from './sftp-session.js'
import type { ByteSource } from './storage.js'

/** Bytes of one request: what OpenSSH takes at most; ssh2 cuts it smaller for servers that take less. */
export const block = 255 * 1024
// Requests in flight, so that a round trip is not waited for after each: 8 MB, enough for 160 MB/s at 50 ms.
const window = 32
// An fsync has to wait for the server's disk; whether the connection lives is seen by other means meanwhile.
const syncWithin = 600_000

const openFile = ({ ask }: SftpLink, path: string, flags: 'r' | 'w' | 'r+', signal: AbortSignal, on?: SftpSession): Promise<Buffer> =>
  ask<Buffer>(`opening ${path}`, signal, ({ sftp }, done) => sftp.open(path, flags, { mode: 0o600 }, done), on)

const closeFile = (used: SftpSession, handle: Buffer): void => {
  if (!used.gone.aborted) used.sftp.close(handle, () => undefined)
}

export interface SftpUpload {
  link: SftpLink
  /** Of the new file. */
  path: string
  retryFor: number
  signal: AbortSignal
  log: Log
}

/** Sends all of `source` into one file, over as many connections as it takes. Resolves to its size, once it is on the server's disk. */
export const uploadToSftp = async ({ link, path: partial, retryFor, signal, log }: SftpUpload, source: ByteSource): Promise<number> => {
  const { ask, session } = link
  const handles = new Map<SftpSession, Promise<Buffer>>()
  let begun = false
  const handleOn = (used: SftpSession): Promise<Buffer> => {
    const known = handles.get(used)
    if (known !== undefined) return known
    const opened = openFile(link, partial, begun ? 'r+' : 'w', signal, used).then((handle) => {
      begun = true
      return handle
    })
    handles.set(used, opened)
    opened.catch(() => handles.delete(used))
    return opened
  }
  try {
    const { size } = await sendChunks({
      source,
      size: block,
      parallel: window,
      signal,
      send: (chunk, stop) =>
        retry(
          async () => {
            const used = await session(stop)
            const handle = await handleOn(used)
            // Chunks have their place in the file, so one sent twice does no harm.
            await ask<void>(`write of ${partial}`, stop, ({ sftp }, done) => sftp.write(handle, chunk.data, 0, chunk.data.length, chunk.offset, done as never), used)
          },
          { retryFor, signal: stop, log, what: `bytes from ${chunk.offset} of ${partial}` },
        ),
    })
    await retry(async () => {
      const used = await session(signal)
      const handle = await handleOn(used)
      await request<void>(used, signal, (done) => used.sftp.ext_openssh_fsync(handle, done), syncWithin).catch((error: unknown) => {
        if (!/does not support/.test(String(error))) throw sftpFailure(error, `flushing ${partial}`)
      })
      const stored = await ask<Attributes>(`look at ${partial}`, signal, ({ sftp }, done) => sftp.fstat(handle, done), used)
      if (stored.size !== size) throw storageError('storage.incomplete', `write of ${partial}: the server has ${stored.size} of ${size} bytes`, { retryable: false })
      await ask<void>(`closing ${partial}`, signal, ({ sftp }, done) => sftp.close(handle, done), used)
      handles.delete(used)
    }, { retryFor, signal, log, what: `flushing ${partial}` })
    return size
  } finally {
    for (const [used, opened] of handles) void opened.then((handle) => closeFile(used, handle), () => undefined)
  }
}

// Blocks are asked for ahead and given on in order.
const blocks = async function* ({ ask }: SftpLink, used: SftpSession, handle: Buffer, from: number, end: number, path: string, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
  const coming: Promise<Uint8Array>[] = []
  const fetch = async (offset: number): Promise<Uint8Array> => {
    const data = Buffer.allocUnsafeSlow(Math.min(block, end - offset))
    for (let got = 0; got < data.length; ) {
      const count = await ask<number>(`read of ${path}`, signal, ({ sftp }, done) => sftp.read(handle, data, got, data.length - got, offset + got, done as never), used)
      if (count === 0) throw storageError('storage.incomplete', `read of ${path}: nothing at byte ${offset + got} of ${end}`)
      got += count
    }
    return data
  }
  try {
    for (let next = from; next < end || coming.length > 0; ) {
      for (; coming.length < window && next < end; next += block) {
        const piece = fetch(next)
        piece.catch(() => undefined)
        coming.push(piece)
      }
      yield await (coming.shift() as Promise<Uint8Array>)
    }
  } finally {
    closeFile(used, handle)
  }
}

/** Opens a range of a file for `readWithResume`. The tag is its size and time. */
export const openSftpRange = async (link: SftpLink, path: string, { offset, end }: Range, tag: string | undefined, signal: AbortSignal): Promise<OpenRange<string>> => {
  const { ask, session } = link
  const used = await session(signal)
  const handle = await openFile(link, path, 'r', signal, used)
  const facts = await ask<Attributes>(`look at ${path}`, signal, ({ sftp }, done) => sftp.fstat(handle, done), used)
  const version = `${facts.size} ${facts.mtime}`
  const problem = !facts.isFile() ? storageError('storage.not_found', `read of ${path}: it is not a file`)
    : tag !== undefined && tag !== version ? storageError('storage.changed', `read of ${path}: it was replaced meanwhile`) : undefined
  const last = Math.min(end ?? Infinity, facts.size)
  if (problem !== undefined || offset >= last) closeFile(used, handle)
  if (problem !== undefined) throw problem
  const body = offset >= last ? (async function* () {})() : blocks(link, used, handle, offset, last, path, signal)
  return { body, size: facts.size, tag: version }
}
