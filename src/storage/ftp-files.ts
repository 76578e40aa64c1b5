import { posix } from 'node:path'
import { messageOf } from '../errors.js'
import { storageError } from './failure.js'
import { replyOf, type FtpPool, type FtpSession } from './ftp-session.js'
import type { RemoteEntry, RemoteFiles } from './remote-tree.js'

/** The size of a file; undefined when there is none. */
export const sizeOf = async ({ client, at }: FtpSession, path: string): Promise<number | undefined> => {
  try {
    return await client.size(at(path))
  } catch (error) {
    // vsftpd has one text for every reason.
    if (replyOf(error)?.code === 550 && !/permission|denied/i.test(messageOf(error))) return undefined
    throw error
  }
}

/** When a file was last written; undefined where the server does not tell. */
export const touched = async ({ client, at }: FtpSession, path: string): Promise<Date | undefined> => {
  try {
    return await client.lastMod(at(path))
  } catch (error) {
    if (replyOf(error) !== undefined) return undefined
    throw error
  }
}

/** Files and folders of an FTP server. */
export const ftpFiles = (pool: FtpPool): RemoteFiles => ({
  stat: (path, signal) => pool.use(`look at ${path}`, signal, async (session) => {
    const size = await sizeOf(session, path)
    return size === undefined ? undefined : { name: posix.basename(path), kind: 'file', size, modifiedAt: await touched(session, path) }
  }),
  entries: (folder, signal) => pool.use(`list of ${folder}`, signal, async ({ client, at }) => {
    // Names with brackets or stars would be patterns as an argument of the listing.
    const entered = await client.sendIgnoringError(`CWD ${at(folder)}`)
    if (entered.code === 550 && !/permission|denied/i.test(entered.message)) return undefined
    if (entered.code >= 400) await client.send(`CWD ${at(folder)}`)
    return (await client.list()).map(({ name, size, modifiedAt, isFile, isDirectory }): RemoteEntry => ({ name, size, modifiedAt, kind: isFile ? 'file' : isDirectory ? 'folder' : 'other' }))
  }),
  makeFolder: (path, signal) => pool.use(`making the folder ${path}`, signal, async ({ client, at }) => {
    try {
      await client.send(`MKD ${at(path)}`)
    } catch (error) {
      // Servers refuse with the same code when it is there already.
      if (replyOf(error) === undefined || (await client.sendIgnoringError(`CWD ${at(path)}`)).code >= 400) throw error
    }
  }),
  removeFolder: (path, signal) => pool.use(`removal of ${path}`, signal, async ({ client, at }) => (await client.sendIgnoringError(`RMD ${at(path)}`)).code < 400),
  removeFile: (path, signal) => pool.use(`removal of ${path}`, signal, async (session) => {
    try {
      await session.client.send(`DELE ${session.at(path)}`)
    } catch (error) {
      // Refused for what is there, or because it is not?
      if (replyOf(error) === undefined || (await sizeOf(session, path)) !== undefined) throw error
    }
  }),
  rename: (from, to, signal) => pool.use(`naming ${to}`, signal, async (session) => {
    const { client, at } = session
    const rename = async (): Promise<void> => {
      await client.send(`RNFR ${at(from)}`)
      await client.send(`RNTO ${at(to)}`)
    }
    try {
      await rename()
    } catch (error) {
      if (replyOf(error) === undefined || (await sizeOf(session, from)) === undefined) throw error
      if ((await sizeOf(session, to)) === undefined) {
        // vsftpd does not say that the folder has gone meanwhile.
        const folder = await client.sendIgnoringError(`CWD ${at(posix.dirname(to))}`)
        if (folder.code >= 400) throw storageError('storage.not_found', `naming ${to}: the folder is not there`, { cause: error })
        throw error
      }
      // A server that does not let a name be replaced: for a moment there is none.
      await client.send(`DELE ${at(to)}`)
      await rename()
    }
  }),
})
