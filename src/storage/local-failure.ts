import { BackupdError, errno } from '../errors.js'
import { storageError, unknownFailure } from './failure.js'

/** Whether there is nothing of that name. */
export const missing = (error: unknown): boolean => errno(error) === 'ENOENT' || errno(error) === 'ENOTDIR'

/** What a call of the file system threw, as one of our errors. */
export const localFailure = (error: unknown, what: string): BackupdError => {
  if (error instanceof BackupdError) return error
  switch (errno(error)) {
    case 'ENOENT': return storageError('storage.not_found', `${what}: there is no such file`, { cause: error })
    case 'ENAMETOOLONG': return storageError('storage.key_invalid', `${what}: the name is too long for this file system`, { cause: error })
    case 'EISDIR': case 'ENOTDIR': case 'EEXIST': case 'ENOTEMPTY':
      return storageError('storage.key_invalid', `${what}: a file and a folder cannot have the same name`, { cause: error })
    default: return unknownFailure(error, what)
  }
}
