import { newestFirst, type Backup, type ScheduleRules } from './backup.js'

/** Why the good backups before `cause` are not deleted. */
export interface Interlock {
  cause: Backup
  text: string
}

/** What speaks against relying on a backup; undefined when nothing does. */
const doubt = ({ state, verified, verify }: Backup, schedule: ScheduleRules | undefined): string | undefined => {
  if (state === 'failed') return 'has failed'
  if (state === 'corrupted') return 'is damaged'
  if (state === 'verifying') return 'is still being verified'
  return !verified && (schedule?.verify ?? verify) ? 'is not verified yet' : undefined
}

/**
 * The lock that the newest of `backups` puts on all before it: it has failed, or is not verified although that was asked for. What is
 * under way has not ended one way or the other, and what was cancelled says nothing, so the one before it counts.
 */
export const interlockOf = (backups: readonly Backup[], schedule: ScheduleRules | undefined, now: Date): Interlock | undefined => {
  const [newest] = backups
    .filter(({ state, foreign, startedAt }) => !foreign && startedAt <= now && ['good', 'failed', 'corrupted', 'verifying'].includes(state))
    .sort(newestFirst)
  if (newest === undefined) return undefined
  const problem = doubt(newest, schedule)
  if (problem === undefined) return undefined
  const whose = schedule === undefined ? '' : ` of ${schedule.name}`
  return { cause: newest, text: `the newest ${newest.copy ? 'copy' : 'backup'}${whose}, execution ${newest.id}, ${problem}` }
}
