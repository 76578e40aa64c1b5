import { busySearchKeys } from '../catalog/search.js'
import type { Check } from './check.js'

const MOST_NAMED = 10

/** No search key was used more often within an hour than BACKUPD_SEARCH_KEY_HOURLY_LIMIT says. Whoever records the result also writes a security event. */
export const searchUsageCheck: Check = {
  name: 'search_usage',
  type: 'system',
  scope: 'shared',
  needsCatalog: true,
  run: async ({ catalog, config }) => {
    const limit = config.searchKeyHourlyLimit
    const subject = 'use of search keys'
    if (limit === 0) return [{ subject, level: 'healthy', message: 'not looked at, because BACKUPD_SEARCH_KEY_HOURLY_LIMIT is 0' }]
    const busy = await busySearchKeys((await catalog()).db, limit)
    const metrics = { limit, keys_over_limit: busy.length, most_uses: busy[0]?.uses ?? null }
    if (busy.length === 0) return [{ subject, level: 'healthy', message: `none over ${limit} in the last hour`, metrics }]
    const told = busy.slice(0, MOST_NAMED).map(({ key, uses }) => `key ${key} ${uses} times`).join(', ')
    const more = busy.length > MOST_NAMED ? ` and ${busy.length - MOST_NAMED} more` : ''
    return [{ subject, level: 'warning', message: `over ${limit} in the last hour: ${told}${more}`, advice: 'Find out who uses them; revoke a key that has leaked.', metrics }]
  },
}
