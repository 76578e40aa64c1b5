import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf } from '../errors.js'
import { shellWord } from '../shell.js'
import type { Check, Finding } from './check.js'

const judge = async (file: string): Promise<Finding> => {
  const subject = 'secret key'
  try {
    const { mode } = await stat(file)
    if ((mode & 0o077) !== 0) return { subject, level: 'critical', message: `${file} can be read by others than its owner`, advice: `chmod 600 ${shellWord(file)}` }
    return { subject, level: 'healthy', message: `${file}; keep a copy of it elsewhere, or the secrets in the catalog have to be entered again` }
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    if (missing) return { subject, level: 'healthy', message: `${file} is made with the first secret that is stored` }
    return { subject, level: 'critical', message: `${file} cannot be read: ${messageOf(error)}`, advice: 'Make it readable for the user that backupd runs as.' }
  }
}

/** The key of the secrets in the catalog is there, for its owner only. Whether it is the right one is told by sources and storages. */
export const secretsCheck: Check = {
  name: 'secrets',
  type: 'system',
  scope: 'machine',
  needsCatalog: false,
  run: async ({ config }) =>
    [config.secretKey === undefined ? await judge(join(config.stateDir, 'secret.key')) : { subject: 'secret key', level: 'healthy', message: 'given by BACKUPD_SECRET_KEY' }],
}
