import { posix } from 'node:path'
import { z } from 'zod'
import { throwIfAborted } from '../errors.js'
import { sendChunks } from './chunks.js'
import { hasCode, storageError } from './failure.js'
import { text, wholeNumber } from './fields.js'
import { remoteTree, type RemoteEntry, type RemoteFiles } from './remote-tree.js'
import { readWithResume, type OpenRange, type Range } from './resume.js'
import { retry } from './retry.js'
import { openSession, request, sftpFailure, type SftpLogin, type SftpSession } from './sftp-session.js'
import type { StorageAdapter, StorageBackend, StorageContext } from './storage.js'

const configSchema = z.looseObject({
  host: text,
  port: wholeNumber(1, 65_535).default(22),
  username: text,
  password: text.optional(),
  private_key_path: text.optional(),
  private_key: text.optional(),
  passphrase: text.optional(),
  /** `SHA256:...` of the server's key; several are separated by commas. */
  host_key_sha256: text.optional(),
  /** Absolute, or from the home folder of the account. */
  remote_path: text.optional(),
})
type SftpConfig = SftpLogin & { remote_path?: string | undefined }

// What OpenSSH takes in one request; ssh2 cuts it smaller for servers that take less.
const block = 255 * 1024
// Requests in flight, so that a round trip is not waited for after each: 8 MB, enough for 160 MB/s at 50 ms.
const window = 32
// An fsync has to wait for the server's disk; whether the connection lives is seen by other means meanwhile.
const syncWithin = 600_000

interface Attributes {
  size: number
  mtime: number
  mode: number
  isFile(): boolean
  isDirectory(): boolean
}

const entryOf = (name: string, { size, mtime, mode }: Pick<Attributes, 'size' | 'mtime' | 'mode'>): RemoteEntry => {
  const type = mode & 0o170000
  return { name, kind: type === 0o100000 ? 'file' : type === 0o040000 ? 'folder' : 'other', size, modifiedAt: new Date(mtime * 1000) }
}

const openSftp = (config: SftpConfig, { log, retryFor }: StorageContext): StorageAdapter => {
  let current: Promise<SftpSession> | undefined
  const closing = new AbortController()

  // One connection for everything: its cost is the cipher, which a second one would share the processor with.
  const session = async (signal: AbortSignal): Promise<SftpSession> => {
    throwIfAborted(signal)
    if (closing.signal.aborted) throw storageError('storage.failed', 'the storage was closed')
    const opened = (current ??= openSession(config, log, closing.signal))
    const forget = (): void => {
      if (current === opened) current = undefined
    }
    opened.then(({ gone }) => gone.addEventListener('abort', forget, { once: true }), forget)
    const { gone } = await opened
    if (!gone.aborted) return opened
    forget()
    throw gone.reason
  }

  /** One request on the current connection, its failure as one of our errors. */
  const ask = async <T>(what: string, signal: AbortSignal, start: (session: SftpSession, done: (error?: Error | null, value?: T) => void) => void, on?: SftpSession): Promise<T> => {
    try {
      const used = on ?? (await session(signal))
      return await request<T>(used, signal, (done) => start(used, done))
    } catch (error) {
      throw sftpFailure(error, what)
    }
  }

  const stat = async (path: string, signal: AbortSignal): Promise<Attributes | undefined> => {
    try {
      return await ask<Attributes>(`look at ${path}`, signal, ({ sftp }, done) => sftp.lstat(path, done))
    } catch (error) {
      if (hasCode(error, 'storage.not_found')) return undefined
      throw error
    }
  }

  const freeSpace = async (signal: AbortSignal): Promise<number | undefined> => {
    for (let path = config.remote_path ?? '.'; ; path = posix.dirname(path)) {
      try {
        const { f_bavail: blocks, f_frsize: size } = await ask<{ f_bavail: number; f_frsize: number }>(`free space of ${path}`, signal, ({ sftp }, done) => sftp.ext_openssh_statvfs(path, done))
        return Number(blocks) * Number(size)
      } catch (error) {
        throwIfAborted(signal)
        // The extension is missing, or the folder is still to be made.
        if (!hasCode(error, 'storage.not_found') || path === posix.dirname(path)) return undefined
      }
    }
  }

  const files: RemoteFiles = {
    stat: async (path, signal) => {
      const found = await stat(path, signal)
      return found?.isFile() === true ? entryOf(posix.basename(path), found) : undefined
    },
    entries: async (folder, signal) => {
      try {
        const path = folder === '' ? '.' : folder
        const list = await ask<{ filename: string; attrs: Attributes }[]>(`list of ${path}`, signal, ({ sftp }, done) => sftp.readdir(path, done as never))
        return list.map(({ filename, attrs }) => entryOf(filename, attrs))
      } catch (error) {
        if (hasCode(error, 'storage.not_found')) return undefined
        throw error
      }
    },
    makeFolder: async (path, signal) => {
      try {
        await ask<void>(`making the folder ${path}`, signal, ({ sftp }, done) => sftp.mkdir(path, { mode: 0o700 }, done))
      } catch (error) {
        throwIfAborted(signal)
        const there = await ask<Attributes>(`look at ${path}`, signal, ({ sftp }, done) => sftp.stat(path, done)).catch(() => undefined)
        if (there?.isDirectory() !== true) throw error
      }
    },
    removeFolder: async (path, signal) => {
      try {
        await ask<void>(`removal of ${path}`, signal, ({ sftp }, done) => sftp.rmdir(path, done))
        return true
      } catch {
        throwIfAborted(signal)
        return false
      }
    },
    removeFile: async (path, signal) => {
      try {
        await ask<void>(`removal of ${path}`, signal, ({ sftp }, done) => sftp.unlink(path, done))
      } catch (error) {
        throwIfAborted(signal)
        if (hasCode(error, 'storage.not_found')) return
        // A folder of this name is no object of this key.
        if (!hasCode(error, 'storage.failed') || (await stat(path, signal))?.isDirectory() !== true) throw error
      }
    },
    rename: async (from, to, signal) => {
      try {
        await ask<void>(`naming ${to}`, signal, ({ sftp }, done) => sftp.ext_openssh_rename(from, to, done))
      } catch (error) {
        if (!/does not support/.test(String(error))) throw error
        // Without the extension a file in the way has to go first: for a moment there is none of this name.
        await files.removeFile(to, signal)
        await ask<void>(`naming ${to}`, signal, ({ sftp }, done) => sftp.rename(from, to, done))
      }
    },
  }
  const tree = remoteTree(files, { base: config.remote_path ?? '', retryFor, log })

  const openFile = (path: string, flags: 'r' | 'w' | 'r+', signal: AbortSignal, on?: SftpSession): Promise<Buffer> =>
    ask<Buffer>(`opening ${path}`, signal, ({ sftp }, done) => sftp.open(path, flags, { mode: 0o600 }, done), on)

  const closeFile = (used: SftpSession, handle: Buffer): void => {
    if (!used.gone.aborted) used.sftp.close(handle, () => undefined)
  }

  // OpenSSH says only "Failure" for a full disk.
  const explain = async (error: unknown, signal: AbortSignal): Promise<unknown> =>
    hasCode(error, 'storage.failed') && ((await freeSpace(signal).catch(() => undefined)) ?? Infinity) < block
      ? storageError('storage.disk_full', `${error.message}: the disk of the server is full`, { cause: error })
      : error

  const fill = async (partial: string, source: Parameters<StorageAdapter['write']>[1], signal: AbortSignal): Promise<number> => {
    const handles = new Map<SftpSession, Promise<Buffer>>()
    let begun = false
    const handleOn = (used: SftpSession): Promise<Buffer> => {
      const known = handles.get(used)
      if (known !== undefined) return known
      const opened = openFile(partial, begun ? 'r+' : 'w', signal, used).then((handle) => {
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

  const write: StorageAdapter['write'] = async (key, source, { signal }) => {
    const partial = await tree.newPartial(signal)
    try {
      const size = await fill(partial, source, signal)
      await tree.publish(partial, key, size, signal)
      return { size }
    } catch (error) {
      await tree.discard(partial)
      throw await explain(error, signal)
    }
  }

  // Blocks are asked for ahead and given on in order.
  const blocks = async function* (used: SftpSession, handle: Buffer, from: number, end: number, path: string, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
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

  const openRange = async (path: string, { offset, end }: Range, tag: string | undefined, signal: AbortSignal): Promise<OpenRange<string>> => {
    const used = await session(signal)
    const handle = await openFile(path, 'r', signal, used)
    const facts = await ask<Attributes>(`look at ${path}`, signal, ({ sftp }, done) => sftp.fstat(handle, done), used)
    const version = `${facts.size} ${facts.mtime}`
    const problem = !facts.isFile() ? storageError('storage.not_found', `read of ${path}: it is not a file`)
      : tag !== undefined && tag !== version ? storageError('storage.changed', `read of ${path}: it was replaced meanwhile`) : undefined
    const last = Math.min(end ?? Infinity, facts.size)
    if (problem !== undefined || offset >= last) closeFile(used, handle)
    if (problem !== undefined) throw problem
    const body = offset >= last ? (async function* () {})() : blocks(used, handle, offset, last, path, signal)
    return { body, size: facts.size, tag: version }
  }

  const address = `${config.username}@${config.host}${config.port === 22 ? '' : `:${config.port}`}`
  return {
    type: 'sftp',
    capabilities: { parallelUpload: false, exactTimes: true, maxObjectSize: 2 ** 63 - 1 },
    location: (key) => `sftp://${address}/${tree.pathOf(key).replace(/^\//, '')}`,
    write,
    read: (key, { offset, length, signal }) =>
      readWithResume<string>({ key, offset, length, retryFor, signal, log, open: (range, tag, stop) => openRange(tree.pathOf(key), range, tag, stop), classify: sftpFailure }),
    stat: tree.stat,
    list: tree.list,
    remove: tree.remove,
    sweep: tree.sweep,
    freeSpace: ({ signal }) => freeSpace(signal),
    close: async () => {
      const open = current
      closing.abort(storageError('storage.failed', 'the storage was closed'))
      await open?.then((used) => used.close(), () => undefined)
    },
  }
}

/** A folder of a server with SSH. Configuration: see `configSchema`; without password and key, the agent of SSH_AUTH_SOCK. */
export const sftpBackend: StorageBackend = {
  type: 'sftp',
  configSchema,
  secretFields: ['password', 'private_key', 'passphrase'],
  open: async (config, context) => openSftp(config as unknown as SftpConfig, context),
}
