import { constants, type Dirent, type Stats } from 'node:fs'
import { lstat, open, opendir, statfs, unlink } from 'node:fs/promises'
import { dirname, join, relative, sep } from 'node:path'
import { pathToFileURL } from 'node:url'
import { z } from 'zod'
import { errno, throwIfAborted } from '../errors.js'
import { sweepAbandoned, type Abandoned } from './abandoned.js'
import { storageError } from './failure.js'
import { flag, text } from './fields.js'
import { localFailure, missing } from './local-failure.js'
import { dropEmptyFolders, syncFolder } from './local-folders.js'
import { writeLocal } from './local-write.js'
import { partialFolder } from './prefix.js'
import type { ByteSource, ReadOptions, StorageAdapter, StorageBackend, StorageContext, StoredObject, SweepReport, WriteOptions } from './storage.js'

const configSchema = z.object({
  /** Absolute; created when missing. */
  base_path: text.refine((value) => value.startsWith('/') && !value.includes('\0'), 'an absolute path'),
  /** Refuse to write unless base_path is on another file system than `/`, so that a disk that was not mounted is noticed instead of filling the root. */
  require_mount: flag.optional(),
})
type LocalConfig = z.output<typeof configSchema>

const readBlock = 1024 * 1024

const openLocal = ({ base_path: base, require_mount: requireMount = false }: LocalConfig, { log }: StorageContext): StorageAdapter => {
  const partials = join(base, partialFolder)
  const pathOf = (key: string): string => join(base, key)

  const read = async function* (key: string, { offset = 0, length = Infinity, signal }: ReadOptions): ByteSource {
    const what = `read of ${pathOf(key)}`
    let file
    try {
      file = await open(pathOf(key), constants.O_RDONLY)
    } catch (error) {
      throw missing(error) ? storageError('storage.not_found', `${what}: there is no such file`, { cause: error }) : localFailure(error, what)
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
      throw localFailure(error, what)
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
      throw localFailure(error, `look at ${pathOf(key)}`)
    }
  }

  const walk = async function* (folder: string, prefix: string, signal: AbortSignal): AsyncGenerator<StoredObject, void, undefined> {
    let entries: AsyncIterable<Dirent>
    try {
      entries = await opendir(folder)
    } catch (error) {
      if (missing(error)) return
      throw localFailure(error, `list of ${folder}`)
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
      throw localFailure(error, `removal of ${pathOf(key)}`)
    }
    await dropEmptyFolders(dirname(pathOf(key)), base)
  }

  const unfinished = async function* (): AsyncGenerator<Abandoned, void, undefined> {
    try {
      for await (const { name } of await opendir(partials)) yield { key: `${partialFolder}/${name}`, touchedAt: undefined }
    } catch (error) {
      if (!missing(error)) throw localFailure(error, `sweep of ${partials}`)
    }
  }

  const sweep = async ({ olderThan, signal }: WriteOptions & { olderThan: Date }): Promise<SweepReport> => {
    const report: SweepReport = { removed: [], remaining: [] }
    const failing = (key: string) => (error: unknown): never => {
      throw missing(error) ? localFailure(error, `sweep of ${pathOf(key)}`) : error
    }
    await sweepAbandoned(unfinished(), {
      olderThan, signal, report,
      touched: async ({ key }) => (await lstat(pathOf(key)).catch(failing(key))).mtime,
      remove: ({ key }) => unlink(pathOf(key)).catch(failing(key)),
    })
    return report
  }

  const freeSpace = async (): Promise<number | undefined> => {
    for (let path = base; ; path = dirname(path)) {
      try {
        const { bavail, bsize } = await statfs(path)
        return bavail * bsize
      } catch (error) {
        if (!missing(error) || path === '/') throw localFailure(error, `free space of ${base}`)
      }
    }
  }

  return {
    type: 'local',
    capabilities: { parallelUpload: false, exactTimes: true, maxObjectSize: 2 ** 63 - 1 },
    location: (key) => pathToFileURL(pathOf(key)).href,
    write: writeLocal({ base, requireMount, log }),
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
