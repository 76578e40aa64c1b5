import { searchKeyExpiry } from '../catalog/search.js'
import type { Check } from './check.js'

/** Days before its end that a key is told of. */
const near = 7

const list = (ids: readonly number[], count: number): string => `${ids.join(', ')}${count > ids.length ? ` and ${count - ids.length} more` : ''}`

/** No search key has expired and is still active, or is about to expire. */
export const searchKeysCheck: Check = {
  name: 'search_keys',
  type: 'system',
  scope: 'shared',
  needsCatalog: true,
  run: async ({ catalog }) => {
    const { active, expired, expiredCount, expiring, expiringCount } = await searchKeyExpiry((await catalog()).db, near)
    const subject = 'search keys'
    const metrics = { active, expired: expiredCount, expiring: expiringCount }
    const problems = [
      ...(expiredCount === 0 ? [] : [`expired and still active: ${list(expired, expiredCount)}`]),
      ...(expiringCount === 0 ? [] : [`expire within ${near} days: ${list(expiring, expiringCount)}`]),
    ]
    if (problems.length === 0) return [{ subject, level: 'healthy', message: `${active} active, none near its end`, metrics }]
    return [{ subject, level: 'warning', message: problems.join('; '), advice: 'Renew those that are still needed, and revoke the others.', metrics }]
  },
}
