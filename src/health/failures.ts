import { recentFailures } from '../catalog/observations.js'
import type { Check } from './check.js'

/** A few failures are no pattern. */
const few = 4
const MOST_NAMED = 5

const named = (names: readonly string[]): string => (names.length > MOST_NAMED ? `${names.slice(0, MOST_NAMED).join(', ')} and ${names.length - MOST_NAMED} more` : names.join(', '))

/** Runs that failed in the last 7 days were made good by later ones, and are the exception. */
export const failuresCheck: Check = {
  name: 'failures',
  type: 'schedule',
  scope: 'shared',
  needsCatalog: true,
  run: async ({ catalog }) => {
    const { failed, good, unresolved } = await recentFailures((await catalog()).db)
    const subject = 'failed runs'
    const metrics = { failed_7d: failed, good_7d: good, unresolved: unresolved.length }
    const advice = 'See "backupd list --status failed".'
    if (unresolved.length > 0) return [{ subject, level: 'warning', message: `${failed} in 7 days; no good backup since of ${named(unresolved)}`, advice, metrics }]
    if (failed >= few && failed * 4 >= failed + good) return [{ subject, level: 'warning', message: `${failed} of ${failed + good} in 7 days, each followed by a good one`, advice, metrics }]
    return [{ subject, level: 'healthy', message: failed === 0 ? 'none in 7 days' : `${failed} of ${failed + good} in 7 days, each followed by a good one`, metrics }]
  },
}
