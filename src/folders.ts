import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { errno } from './errors.js'

// Node's own recursive mkdir tries for ever, deaf to signals, where a parent is there and still answers ENOENT, as in /proc.
/**
 * Makes `folder` and what is missing above it. Gives the uppermost folder that had to be made, or nothing when all were there.
 * Fails as `mkdir` does.
 */
export const makeFolders = async (folder: string, mode = 0o700): Promise<string | undefined> => {
  try {
    await mkdir(folder, { mode })
    return folder
  } catch (error) {
    if (errno(error) === 'EEXIST' && (await stat(folder)).isDirectory()) return undefined
    const parent = dirname(folder)
    if (errno(error) !== 'ENOENT' || parent === folder) throw error
    const first = await makeFolders(parent, mode)
    await mkdir(folder, { mode }).catch((again: unknown) => {
      if (errno(again) !== 'EEXIST') throw again
    })
    return first ?? folder
  }
}
