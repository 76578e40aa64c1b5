import { readBack } from '../catalog/observations.js'
import type { Check } from './check.js'

const backups = (count: number): string => (count === 1 ? '1 backup' : `${count} backups`)

/** Every backup is read back from time to time, and none is found damaged. */
export const integrityCheck: Check = {
  name: 'integrity',
  type: 'integrity',
  scope: 'shared',
  needsCatalog: true,
  run: async ({ catalog, config }) => {
    const days = config.scrubDays
    const found = await readBack((await catalog()).db, days === 0 ? 30 : days)
    const subject = 'stored backups'
    const metrics = {
      backups: found.backups, not_read_back: found.unread, oldest_days: found.oldest === null ? null : Math.round(found.oldest * 10) / 10,
      damaged_7d: found.damaged, damaged: found.damagedEver, scrub_days: days,
    }
    if (found.damaged > 0) {
      return [{
        subject, level: 'critical', message: `${backups(found.damaged)} found damaged within 7 days`, metrics,
        advice: 'See "backupd list --status corrupted"; take a new backup, look at the storage, and verify again what was repaired.',
      }]
    }
    const age = found.oldest === null ? '' : `; the longest unread one for ${found.oldest.toFixed(1)} days`
    const message = found.backups === 0 ? 'there are none yet' : `${backups(found.backups)}${age}`
    if (days > 0 && found.unread > 0) {
      return [{
        subject, level: 'warning', message: `${found.unread} of ${backups(found.backups)} not read back for more than ${days} days${age}`, metrics,
        advice: 'Look in the daemon\'s log whether they can be read, or give it more time with BACKUPD_SCRUB_DAYS.',
      }]
    }
    return [{ subject, level: 'healthy', message: days === 0 && found.backups > 0 ? `${message}; none is read back by itself, because BACKUPD_SCRUB_DAYS is 0` : message, metrics }]
  },
}
