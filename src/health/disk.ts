import { statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Check, Finding } from './check.js'
import { MiB, sizeText } from './size-text.js'

/** Below this the state directory's catalog and logs may stop. */
const little = 1024 * MiB
const tooLittle = 100 * MiB

const freeAt = async (path: string): Promise<number> => {
  try {
    const { bavail, bsize } = await statfs(path)
    return bavail * bsize
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || dirname(path) === path) throw error
    return freeAt(dirname(path))
  }
}

const judgeState = async (stateDir: string): Promise<Finding> => {
  const free = await freeAt(stateDir)
  const level = free < tooLittle ? 'critical' : free < little ? 'warning' : 'healthy'
  return { subject: 'disk of the state directory', level, message: `${sizeText(free)} free`, metrics: { free_bytes: free }, ...(level === 'healthy' ? {} : { advice: 'Free some space there.' }) }
}

/** There is room for the catalog and for what the daemon keeps. The room for backups is looked at with their storage. */
export const diskCheck: Check = {
  name: 'disk',
  type: 'system',
  scope: 'machine',
  needsCatalog: false,
  run: async ({ config }) => [await judgeState(config.stateDir)],
}
