import { randomBytes } from 'node:crypto'
import { posix } from 'node:path'
import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import { sweepAbandoned, type Abandoned } from './abandoned.js'
import { hasCode, storageError } from './failure.js'
import { partialFolder } from './prefix.js'
import { retry } from './retry.js'
import type { StorageAdapter, StoredObject, SweepReport } from './storage.js'

export interface RemoteEntry {
  name: string
  kind: 'file' | 'folder' | 'other'
  /** Bytes. */
  size: number
  modifiedAt: Date | undefined
}

/** What a protocol of remote files must be able to do, one attempt each; failures are our errors. Paths as the server takes them. */
export interface RemoteFiles {
  /** Of a folder; undefined when it is not there. */
  entries(folder: string, signal: AbortSignal): Promise<RemoteEntry[] | undefined>
  /** Of one file; undefined when there is none of this name. */
  stat(path: string, signal: AbortSignal): Promise<RemoteEntry | undefined>
  /** One level. Fine when it is there already. */
  makeFolder(path: string, signal: AbortSignal): Promise<void>
  /** An empty folder; false when it stays. */
  removeFolder(path: string, signal: AbortSignal): Promise<boolean>
  /** Fine when it is not there. */
  removeFile(path: string, signal: AbortSignal): Promise<void>
  /** Takes the place of a file that has the new name. */
  rename(from: string, to: string, signal: AbortSignal): Promise<void>
}

export interface RemoteTree extends Pick<StorageAdapter, 'stat' | 'list' | 'remove' | 'sweep'> {
  pathOf(key: string): string
  /** A path for a file that is being written, in a folder that exists. */
  newPartial(signal: AbortSignal): Promise<string>
  /** Gives a written file its name: the moment the object appears. */
  publish(partial: string, key: string, size: number, signal: AbortSignal): Promise<void>
  /** Removes what a failed write left, if that can be done at once; else `sweep` finds it. */
  discard(partial: string): Promise<void>
}

export interface RemoteTreeOptions {
  /** The folder of the storage, as configured: absolute, or from where the login lands; empty for that itself. */
  base: string
  retryFor: number
  log: Log
}

// Enough for a folder that others remove at the same moment, again and again.
const publishAttempts = 20
const discardWithin = 5_000

/** Objects as files below a folder of a server: `a/b` lies at `<base>/a/b`, what is being written in `<base>/.backupd-partial/`. */
export const remoteTree = (files: RemoteFiles, { base, retryFor, log }: RemoteTreeOptions): RemoteTree => {
  const root = base === '' || base === '/' ? base : `${base.replace(/\/+$/, '')}/`
  const pathOf = (key: string): string => root + key
  const folderOf = (path: string): string => (path.includes('/') ? posix.dirname(path) : '')
  const again = <T>(what: string, signal: AbortSignal, action: () => Promise<T>): Promise<T> => retry(action, { retryFor, signal, log, what })

  // Servers differ in what they say when a parent is missing, so any refusal is a reason to try one level up.
  const makeFolders = async (folder: string, signal: AbortSignal): Promise<void> => {
    if (folder === '' || folder === '/' || folder === '.') return
    try {
      await files.makeFolder(folder, signal)
    } catch (error) {
      if (!(error instanceof BackupdError) || error.retryable) throw error
      throwIfAborted(signal)
      if (folderOf(folder) === '') throw error
      await makeFolders(folderOf(folder), signal)
      await files.makeFolder(folder, signal)
    }
  }

  const dropEmptyFolders = async (from: string, signal: AbortSignal): Promise<void> => {
    try {
      for (let folder = from; folder.length > root.length && folder.startsWith(root); folder = folderOf(folder)) {
        if (!(await files.removeFolder(folder, signal))) return
      }
    } catch (error) {
      log.debug({ folder: from, error: messageOf(error) }, 'could not remove an empty folder')
    }
  }

  const newPartial = (signal: AbortSignal): Promise<string> =>
    again('making the folder for partial files', signal, async () => {
      await makeFolders(pathOf(partialFolder), signal)
      return pathOf(`${partialFolder}/${randomBytes(12).toString('hex')}`)
    })

  const publish = async (partial: string, key: string, size: number, signal: AbortSignal): Promise<void> => {
    const path = pathOf(key)
    let asked = false
    await again(`naming ${path}`, signal, async () => {
      // The answer to a rename may have been lost with the connection.
      if (asked && (await files.stat(partial, signal)) === undefined) {
        if ((await files.stat(path, signal))?.size === size) return
        throw storageError('storage.changed', `write of ${path}: the partial file ${partial} has gone`)
      }
      for (let attempt = 0; ; attempt += 1) {
        await makeFolders(folderOf(path), signal)
        asked = true
        try {
          return await files.rename(partial, path, signal)
        } catch (error) {
          // Somebody removing the last other object of the folder removed the folder too.
          if (!hasCode(error, 'storage.not_found') || attempt === publishAttempts) throw error
        }
      }
    })
  }

  const discard = async (partial: string): Promise<void> => {
    try {
      await files.removeFile(partial, AbortSignal.timeout(discardWithin))
    } catch (error) {
      log.warn({ file: partial, error: messageOf(error) }, 'could not remove a partial file; a sweep will')
    }
  }

  const stat = async (key: string, { signal }: { signal: AbortSignal }): Promise<StoredObject | undefined> => {
    const found = await again(`look at ${pathOf(key)}`, signal, () => files.stat(pathOf(key), signal))
    return found?.kind === 'file' ? { key, size: found.size, modifiedAt: found.modifiedAt } : undefined
  }

  const walk = async function* (folder: string, prefix: string, signal: AbortSignal): AsyncGenerator<StoredObject, void, undefined> {
    const path = folder === '' ? base : pathOf(folder)
    const entries = await again(`list of ${path}`, signal, () => files.entries(path, signal))
    for (const { name, kind, size, modifiedAt } of entries ?? []) {
      throwIfAborted(signal)
      if (name === partialFolder || name === '.' || name === '..') continue
      const key = folder === '' ? name : `${folder}/${name}`
      if (kind === 'folder' && (`${key}/`.startsWith(prefix) || prefix.startsWith(`${key}/`))) yield* walk(key, prefix, signal)
      if (kind === 'file' && key.startsWith(prefix)) yield { key, size, modifiedAt }
    }
  }

  const remove = async (key: string, { signal }: { signal: AbortSignal }): Promise<void> => {
    await again(`removal of ${pathOf(key)}`, signal, () => files.removeFile(pathOf(key), signal))
    await dropEmptyFolders(folderOf(pathOf(key)), signal)
  }

  const partials = async function* (folder: string, signal: AbortSignal): AsyncGenerator<Abandoned, void, undefined> {
    const entries = await again(`sweep of ${folder}`, signal, () => files.entries(folder, signal))
    for (const { name, kind, modifiedAt } of entries ?? []) if (kind === 'file') yield { key: `${partialFolder}/${name}`, touchedAt: modifiedAt }
  }

  const sweep: StorageAdapter['sweep'] = async ({ olderThan, signal }) => {
    const report: SweepReport = { removed: [], remaining: [] }
    await sweepAbandoned(partials(pathOf(partialFolder), signal), {
      olderThan, signal, report,
      // Listings of some servers tell no exact time, or none at all.
      touched: ({ key }) => again(`look at ${pathOf(key)}`, signal, async () => (await files.stat(pathOf(key), signal))?.modifiedAt),
      remove: ({ key }) => again(`removal of ${pathOf(key)}`, signal, () => files.removeFile(pathOf(key), signal)),
    })
    return report
  }

  return {
    pathOf, newPartial, publish, discard, stat, remove, sweep,
    list: (prefix, { signal }) => walk(prefix.includes('/') ? posix.dirname(`${prefix}x`) : '', prefix, signal),
  }
}
