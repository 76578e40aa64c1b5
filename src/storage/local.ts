import { randomBytes } from 'node:crypto'
import { constants, type Dirent, type Stats } from 'node:fs'
import { lstat, open, opendir, rename, rmdir, stat, statfs, unlink } from 'node:fs/promises'
import { dirname, join, relative, sep } from 'node:path'
import { pathToFileURL } from 'node:url'
import { z } from 'zod'
import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import { makeFolders } from '../folders.js'
import { storageError, unknownFailure } from './failure.js'
import { flag, text } from './fields.js'
import { partialFolder } from './prefix.js'
import type { ByteSource, ReadOptions, StorageAdapter, StorageBackend, StorageContext, StoredObject, SweepReport, WriteOptions } from './storage.js'
import { closeIterator, within } from './wait.js'

const configSchema = z.object({
  /** Absolute; created when missing. */
  base_path: text.refine((value) => value.startsWith('/') && !value.includes('\0'), 'an absolute path'),
  /** Refuse to write unless base_path is on another file system than `/`, so that a disk that was not mounted is noticed instead of filling the root. */
  require_mount: flag.optional(),
})
type LocalConfig = z.output<typeof configSchema>

const readBlock = 1024 * 1024

const errno = (error: unknown): string | undefined => (error as { code?: string } | undefined)?.code

const missing = (error: unknown): boolean => errno(error) === 'ENOENT' || errno(error) === 'ENOTDIR'

const failure = (error: unknown, what: string): BackupdError => {
  if (error instanceof BackupdError) return error
  switch (errno(error)) {
    case 'ENOENT': return storageError('storage.not_found', `${what}: there is no such file`, { cause: error })
    case 'ENAMETOOLONG': return storageError('storage.key_invalid', `${what}: the name is too long for this file system`, { cause: error })
    case 'EISDIR': case 'ENOTDIR': case 'EEXIST': case 'ENOTEMPTY':
      return storageError('storage.key_invalid', `${what}: a file and a folder cannot have the same name`, { cause: error })
    default: return unknownFailure(error, what)
  }
}

// A new name is on the disk only once its folder is.
const syncFolder = async (folder: string): Promise<void> => {
  const handle = await open(folder, constants.O_RDONLY)
  try {
    await handle.sync()
  } catch (error) {
    // Some network file systems do not know it for folders.
    if (errno(error) !== 'EINVAL' && errno(error) !== 'ENOTSUP') throw error
  } finally {
    await handle.close()
  }
}

const openLocal = ({ base_path: base, require_mount: requireMount = false }: LocalConfig, { log }: StorageContext): StorageAdapter => {
  const partials = join(base, partialFolder)
  const pathOf = (key: string): string => join(base, key)

  const makeFolder = async (folder: string): Promise<void> => {
    const first = await makeFolders(folder)
    if (first === undefined) return
    for (let made = folder; made.length >= first.length; made = dirname(made)) await syncFolder(dirname(made))
  }

  const checkMount = async (): Promise<void> => {
    if (!requireMount) return
    // base_path itself may be yet to be made.
    const device = async (path: string): Promise<number> => {
      try {
        return (await stat(path)).dev
      } catch (error) {
        if (!missing(error) || path === '/') throw error
        return device(dirname(path))
      }
    }
    if ((await device(base)) === (await device('/'))) throw storageError('storage.not_mounted', `${base} is not on a file system of its own`)
  }

  const fill = async (path: string, source: ByteSource, signal: AbortSignal): Promise<number> => {
    const iterator = source[Symbol.asyncIterator]()
    let ended = false
    let size = 0
    const file = await open(path, 'wx', 0o600)
    try {
      for (;;) {
        const next = await within(iterator.next(), { signal })
        if (next.done === true) break
        for (let written = 0; written < next.value.length; ) {
          written += (await file.write(next.value, written, next.value.length - written)).bytesWritten
        }
        size += next.value.length
      }
      ended = true
      await file.sync()
    } finally {
      if (!ended) closeIterator(iterator)
      await file.close()
    }
    return size
  }

  // Somebody removing the last other object of a folder may remove the folder under our hands.
  const settle = async (from: string, to: string): Promise<void> => {
    for (let attempt = 0; ; attempt += 1) {
      try {
        await makeFolder(dirname(to))
        await rename(from, to)
        break
      } catch (error) {
        if (errno(error) !== 'ENOENT' || attempt === 100) throw error
      }
    }
    try {
      await syncFolder(dirname(to))
    } catch (error) {
      // The folder is gone only when somebody has removed the object since: it was stored.
      if (errno(error) === 'ENOENT') return
      // What may not outlive a power cut is not stored.
      await unlink(to).catch(() => undefined)
      throw error
    }
  }

  const dropEmptyFolders = async (from: string): Promise<void> => {
    for (let folder = from; folder !== base && folder.startsWith(base); folder = dirname(folder)) {
      try {
        await rmdir(folder)
      } catch {
        return
      }
    }
  }

  const write = async (key: string, source: ByteSource, { signal }: WriteOptions): Promise<{ size: number }> => {
    const temporary = join(partials, randomBytes(12).toString('hex'))
    try {
      await checkMount()
      await makeFolder(partials)
      const size = await fill(temporary, source, signal)
      throwIfAborted(signal)
      await settle(temporary, pathOf(key))
      return { size }
    } catch (error) {
      await unlink(temporary).catch((second: unknown) => {
        if (!missing(second)) log.warn({ file: temporary, error: messageOf(second) }, 'could not remove a partial file')
      })
      await dropEmptyFolders(dirname(pathOf(key)))
      throw failure(error, `write of ${pathOf(key)}`)
    }
  }

  const read = async function* (key: string, { offset = 0, length = Infinity, signal }: ReadOptions): ByteSource {
    const what = `read of ${pathOf(key)}`
    let file
    try {
      file = await open(pathOf(key), constants.O_RDONLY)
    } catch (error) {
      throw missing(error) ? storageError('storage.not_found', `${what}: there is no such file`, { cause: error }) : failure(error, what)
    }
    try {
      const facts = await file.stat()
      if (!facts.isFile()) throw storageError('storage.not_found', `${what}: it is not a file`)
      const end = Math.min(facts.size, offset + length)
      for (let position = offset; position < end; ) {
        throwIfAborted(signal)
        const block = Buffer.allocUnsafeSlow(Math.min(readBlock, end - position))
        const { bytesRead } = await file.read(block, 0, block.length, position)
        if (bytesRead === 0) throw storageError('storage.incomplete', `${what}: ended at byte ${position} of ${end}`)
        position += bytesRead
        yield block.subarray(0, bytesRead)
      }
    } catch (error) {
      throw failure(error, what)
    } finally {
      await file.close()
    }
  }

  const describe = (key: string, facts: Stats): StoredObject => ({ key, size: facts.size, modifiedAt: facts.mtime })

  const facts = async (key: string): Promise<StoredObject | undefined> => {
    try {
      const found = await lstat(pathOf(key))
      return found.isFile() ? describe(key, found) : undefined
    } catch (error) {
      if (missing(error)) return undefined
      throw failure(error, `look at ${pathOf(key)}`)
    }
  }

  const walk = async function* (folder: string, prefix: string, signal: AbortSignal): AsyncGenerator<StoredObject, void, undefined> {
    let entries: AsyncIterable<Dirent>
    try {
      entries = await opendir(folder)
    } catch (error) {
      if (missing(error)) return
      throw failure(error, `list of ${folder}`)
    }
    for await (const entry of entries) {
      throwIfAborted(signal)
      if (entry.name === partialFolder) continue
      const key = relative(base, join(folder, entry.name)).split(sep).join('/')
      if (entry.isDirectory()) {
        if (`${key}/`.startsWith(prefix) || prefix.startsWith(`${key}/`)) yield* walk(join(folder, entry.name), prefix, signal)
      } else if (entry.isFile() && key.startsWith(prefix)) {
        const found = await facts(key)
        if (found !== undefined) yield found
      }
    }
  }

  const remove = async (key: string): Promise<void> => {
    try {
      await unlink(pathOf(key))
      await syncFolder(dirname(pathOf(key)))
    } catch (error) {
      if (missing(error)) return
      // unlink of a folder: EISDIR on Linux, EPERM elsewhere; there is no object of that key.
      if (errno(error) === 'EISDIR') return
      throw failure(error, `removal of ${pathOf(key)}`)
    }
    await dropEmptyFolders(dirname(pathOf(key)))
  }

  const sweep = async ({ olderThan, signal }: WriteOptions & { olderThan: Date }): Promise<SweepReport> => {
    const report: SweepReport = { removed: [], remaining: [] }
    let entries: AsyncIterable<Dirent>
    try {
      entries = await opendir(partials)
    } catch (error) {
      if (missing(error)) return report
      throw failure(error, `sweep of ${partials}`)
    }
    for await (const entry of entries) {
      throwIfAborted(signal)
      const path = join(partials, entry.name)
      const key = `${partialFolder}/${entry.name}`
      try {
        if ((await lstat(path)).mtime >= olderThan) continue
        await unlink(path)
        report.removed.push(key)
      } catch (error) {
        if (!missing(error)) report.remaining.push({ key, reason: messageOf(error) })
      }
    }
    return report
  }

  const freeSpace = async (): Promise<number | undefined> => {
    for (let path = base; ; path = dirname(path)) {
      try {
        const { bavail, bsize } = await statfs(path)
        return bavail * bsize
      } catch (error) {
        if (!missing(error) || path === '/') throw failure(error, `free space of ${base}`)
      }
    }
  }

  return {
    type: 'local',
    capabilities: { parallelUpload: false, exactTimes: true, maxObjectSize: 2 ** 63 - 1 },
    location: (key) => pathToFileURL(pathOf(key)).href,
    write,
    read,
    stat: facts,
    list: (prefix, { signal }) => walk(prefix.includes('/') ? join(base, dirname(`${prefix}x`)) : base, prefix, signal),
    remove,
    sweep,
    freeSpace,
    close: async () => undefined,
  }
}

/** A folder of this machine, or of anything mounted on it. Configuration: `base_path`, `require_mount`. */
export const localBackend: StorageBackend = {
  type: 'local',
  configSchema,
  secretFields: [],
  leastRights: 'a folder that belongs to the account of the daemon alone, mode 0700',
  open: async (config, context) => {
    const { base_path, ...rest } = config as LocalConfig
    const base = join(base_path, '.')
    return openLocal({ ...rest, base_path: base.length > 1 ? base.replace(/\/$/, '') : base }, context)
  },
}
