import type { Environment } from '../operation/environment.js'
import { scrubOne } from '../operation/scrub.js'
import type { Work } from './work.js'

/** Backups that one daemon reads back between two beats, one after the other. */
const MOST = 20

/** Reads back what is due, as long as this daemon has a hand free for backups. */
export const scrub = async (env: Environment, work: Pick<Work, 'running'>): Promise<void> => {
  for (let count = 0; count < MOST && !env.signal.aborted && work.running.size < env.config.concurrency; count += 1) {
    if ((await scrubOne(env)) === undefined) return
  }
}
