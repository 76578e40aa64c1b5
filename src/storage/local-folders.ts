import { constants } from 'node:fs'
import { open, rmdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { errno } from '../errors.js'
import { makeFolders } from '../folders.js'

/** A new name is on the disk only once its folder is. */
export const syncFolder = async (folder: string): Promise<void> => {
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

/** Makes a folder with those above it, on the disk when it returns. */
export const makeFolder = async (folder: string): Promise<void> => {
  const first = await makeFolders(folder)
  if (first === undefined) return
  for (let made = folder; made.length >= first.length; made = dirname(made)) await syncFolder(dirname(made))
}

/** Removes the folder `from` and those above it below `base`, as far as they are empty. */
export const dropEmptyFolders = async (from: string, base: string): Promise<void> => {
  for (let folder = from; folder !== base && folder.startsWith(base); folder = dirname(folder)) {
    try {
      await rmdir(folder)
    } catch {
      return
    }
  }
}
