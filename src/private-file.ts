import { randomBytes } from 'node:crypto'
import { link, open, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { makeFolders } from './folders.js'

/**
 * Makes `path` with what `content` gives, mode 0600, its folder too (mode 0700). The file appears whole or not at all, is on the disk
 * before it has its name, and is never put over one that is there: of several processes that make it at once, one wins, so read it
 * again afterwards. Fails as the file system does.
 */
export const makePrivateFile = async (path: string, content: () => string): Promise<void> => {
  await makeFolders(dirname(path))
  const draft = `${path}.${process.pid}.${randomBytes(6).toString('hex')}`
  try {
    const handle = await open(draft, 'wx', 0o600)
    try {
      await handle.writeFile(content())
      await handle.sync()
    } finally {
      await handle.close()
    }
    await link(draft, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  } finally {
    await rm(draft, { force: true })
  }
}
