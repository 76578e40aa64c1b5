import { posix } from 'node:path'
import { throwIfAborted } from '../errors.js'
import { hasCode } from './failure.js'
import type { RemoteEntry, RemoteFiles } from './remote-tree.js'
import type { SftpLink } from './sftp-link.js'

/** What the server tells of a file. */
export interface Attributes {
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

const lstat = async ({ ask }: SftpLink, path: string, signal: AbortSignal): Promise<Attributes | undefined> => {
  try {
    return await ask<Attributes>(`look at ${path}`, signal, ({ sftp }, done) => sftp.lstat(path, done))
  } catch (error) {
    if (hasCode(error, 'storage.not_found')) return undefined
    throw error
  }
}

/** Free bytes of the disk that `folder` is or will be on; undefined where the server does not tell. */
export const freeSpaceAt = async ({ ask }: SftpLink, folder: string, signal: AbortSignal): Promise<number | undefined> => {
  for (let path = folder; ; path = posix.dirname(path)) {
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

/** Files and folders of an SFTP server. */
export const sftpFiles = (link: SftpLink): RemoteFiles => {
  const { ask } = link
  const files: RemoteFiles = {
    stat: async (path, signal) => {
      const found = await lstat(link, path, signal)
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
        if (!hasCode(error, 'storage.failed') || (await lstat(link, path, signal))?.isDirectory() !== true) throw error
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
  return files
}
