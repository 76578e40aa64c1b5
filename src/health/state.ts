import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Check, Finding } from './check.js'
import { shellWord } from '../shell.js'

const missing = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOENT'

/** The nearest folder that is there: what decides whether `path` can be made. */
const nearest = async (path: string): Promise<string> => {
  try {
    await stat(path)
    return path
  } catch (error) {
    if (!missing(error) || dirname(path) === path) throw error
    return nearest(dirname(path))
  }
}

const judge = async (path: string): Promise<Finding> => {
  const subject = 'state directory'
  const found = await nearest(path)
  const writable = await access(found, constants.W_OK | constants.X_OK).then(() => true, () => false)
  if (!writable) {
    return { subject, level: 'critical', message: `${found} is not writable for this user`, advice: 'Give it to the user that backupd runs as, or name another one in BACKUPD_STATE_DIR.' }
  }
  if (found !== path) return { subject, level: 'healthy', message: `${path} is not there yet, and can be made` }
  const { mode } = await stat(path)
  // Names in it can be replaced by who may write to it, the secret key and private keys among them.
  if ((mode & 0o022) !== 0) return { subject, level: 'critical', message: `others than its owner may write to ${path}`, advice: `chmod go-w ${shellWord(path)}` }
  return { subject, level: 'healthy', message: `${path} is writable for this user, and not for others` }
}

/** The state directory is there or can be made, and only its owner may write to it. */
export const stateCheck: Check = {
  name: 'state',
  type: 'system',
  scope: 'machine',
  needsCatalog: false,
  run: async ({ config }) => [await judge(config.stateDir)],
}
