import { randomBytes } from 'node:crypto'
import { open, rename, stat, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { errno, messageOf, throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import { storageError } from './failure.js'
import { localFailure, missing } from './local-failure.js'
import { dropEmptyFolders, makeFolder, syncFolder } from './local-folders.js'
import { partialFolder } from './prefix.js'
import type { ByteSource, StorageAdapter } from './storage.js'
import { closeIterator, within } from './wait.js'

const checkMount = async (base: string): Promise<void> => {
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

/** Writes files below `base`: under a name of their own first, then, whole and on the disk, under the one they are to have. */
export const writeLocal = ({ base, requireMount, log }: { base: string; requireMount: boolean; log: Log }): StorageAdapter['write'] => {
  const partials = join(base, partialFolder)
  return async (key, source, { signal }) => {
    const target = join(base, key)
    const temporary = join(partials, randomBytes(12).toString('hex'))
    try {
      if (requireMount) await checkMount(base)
      await makeFolder(partials)
      const size = await fill(temporary, source, signal)
      throwIfAborted(signal)
      await settle(temporary, target)
      return { size }
    } catch (error) {
      await unlink(temporary).catch((second: unknown) => {
        if (!missing(second)) log.warn({ file: temporary, error: messageOf(second) }, 'could not remove a partial file')
      })
      await dropEmptyFolders(dirname(target), base)
      throw localFailure(error, `write of ${target}`)
    }
  }
}
