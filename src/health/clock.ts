import { databaseTime } from '../catalog/attention.js'
import type { Check } from './check.js'

/** Object storages refuse requests of a machine that is wrong by a quarter of an hour. Milliseconds. */
const bad = 5 * 60_000
const notable = 5_000

/** The clock of this machine agrees with the catalog's, by which schedules and leases go. */
export const clockCheck: Check = {
  name: 'clock',
  type: 'system',
  scope: 'machine',
  needsCatalog: true,
  run: async ({ catalog }) => {
    const { db } = await catalog()
    const before = Date.now()
    const theirs = await databaseTime(db)
    const after = Date.now()
    // The answer was given at some moment between the two.
    const offset = Math.round((before + after) / 2 - theirs.getTime())
    const apart = Math.max(0, Math.abs(offset) - (after - before) / 2)
    const level = apart > bad ? 'critical' : apart > notable ? 'warning' : 'healthy'
    const seconds = (Math.abs(offset) / 1000).toFixed(1)
    const message = level === 'healthy' ? 'agrees with the catalog\'s' : `this machine's is ${seconds} s ${offset > 0 ? 'ahead of' : 'behind'} the catalog's`
    return [{
      subject: 'clock', level, message, metrics: { offset_ms: offset },
      ...(level === 'healthy' ? {} : { advice: 'Have both machines keep time, such as with chrony; schedules go by the catalog\'s clock.' }),
    }]
  },
}
