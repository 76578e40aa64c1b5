import { z } from 'zod'
import { hasCode, storageError } from './failure.js'
import { text, wholeNumber } from './fields.js'
import { remoteTree } from './remote-tree.js'
import { readWithResume } from './resume.js'
import { freeSpaceAt, sftpFiles } from './sftp-files.js'
import { sftpLink } from './sftp-link.js'
import { sftpFailure, type SftpLogin } from './sftp-session.js'
import { block, openSftpRange, uploadToSftp } from './sftp-transfer.js'
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

const openSftp = (config: SftpConfig, { log, retryFor }: StorageContext): StorageAdapter => {
  const link = sftpLink(config, log)
  const free = (signal: AbortSignal): Promise<number | undefined> => freeSpaceAt(link, config.remote_path ?? '.', signal)
  const tree = remoteTree(sftpFiles(link), { base: config.remote_path ?? '', retryFor, log })

  // OpenSSH says only "Failure" for a full disk.
  const explain = async (error: unknown, signal: AbortSignal): Promise<unknown> =>
    hasCode(error, 'storage.failed') && ((await free(signal).catch(() => undefined)) ?? Infinity) < block
      ? storageError('storage.disk_full', `${error.message}: the disk of the server is full`, { cause: error })
      : error

  const write: StorageAdapter['write'] = async (key, source, { signal }) => {
    const partial = await tree.newPartial(signal)
    try {
      const size = await uploadToSftp({ link, path: partial, retryFor, signal, log }, source)
      await tree.publish(partial, key, size, signal)
      return { size }
    } catch (error) {
      const failure = await explain(error, signal)
      await tree.discard(partial)
      throw failure
    }
  }

  const address = `${config.username}@${config.host}${config.port === 22 ? '' : `:${config.port}`}`
  return {
    type: 'sftp',
    capabilities: { parallelUpload: false, exactTimes: true, maxObjectSize: 2 ** 63 - 1 },
    location: (key) => `sftp://${address}/${tree.pathOf(key).replace(/^\//, '')}`,
    write,
    read: (key, { offset, length, signal }) =>
      readWithResume<string>({ key, offset, length, retryFor, signal, log, open: (range, tag, stop) => openSftpRange(link, tree.pathOf(key), range, tag, stop), classify: sftpFailure }),
    stat: tree.stat,
    list: tree.list,
    remove: tree.remove,
    sweep: tree.sweep,
    freeSpace: ({ signal }) => free(signal),
    close: () => link.close(),
  }
}

/** A folder of a server with SSH. Configuration: see `configSchema`; without password and key, the agent of SSH_AUTH_SOCK. */
export const sftpBackend: StorageBackend = {
  type: 'sftp',
  configSchema,
  secretFields: ['password', 'private_key', 'passphrase'],
  leastRights: 'an account that can do nothing but SFTP, below one folder, with a key of its own',
  open: async (config, context) => openSftp(config as unknown as SftpConfig, context),
}
