import { newestGoodBackups } from '../catalog/executions.js'
import { listSchedules, type Schedule } from '../catalog/schedules.js'
import { compressionTypes } from '../catalog/statuses.js'
import { codecs } from '../compression/registry.js'
import { findingOf, type Check, type Finding, type HealthContext } from './check.js'

const time = (at: Date): string => at.toISOString().replace(/\.\d+Z$/, 'Z')

/** Time that a run has from when it is due until it counts as missing, milliseconds. */
const grace = 3_600_000

const unusable = async (schedule: Schedule): Promise<string | undefined> => {
  const type = compressionTypes.find((name) => name === schedule.compression_type)
  return type === undefined ? `compression "${schedule.compression_type}" is not known` : codecs[type].unavailable()
}

// One run that failed may be made good by the next; two that were due without a good backup are a hole.
const judgeAge = (schedule: Schedule, good: Date | undefined, now: Date, dueAfter: HealthContext['dueAfter']): Finding => {
  const subject = `schedule ${schedule.name}`
  // A schedule that was changed or switched on again is judged from then on.
  const changed = schedule.updated_at ?? schedule.created_at
  const since = good !== undefined && good > changed ? good : changed
  const due = dueAfter(schedule, since)
  const second = dueAfter(schedule, due)
  const last = good === undefined ? 'it has no good backup yet' : `its last good backup began at ${time(good)}`
  const failed = schedule.last_status === 'failed' || schedule.last_status === 'corrupted'
  const advice = `See "backupd list --schedule ${schedule.name}" and the daemon's log.`
  if (second.getTime() + grace < now.getTime()) return { subject, level: 'critical', message: `${last}, though it was due at ${time(due)} and ${time(second)}`, advice }
  if (failed) return { subject, level: 'warning', message: `its last run ended as ${schedule.last_status ?? ''}; ${last}`, advice }
  if (due.getTime() + grace < now.getTime()) return { subject, level: 'warning', message: `${last}, though it was due at ${time(due)}`, advice }
  return { subject, level: 'healthy', message: `${last}; next at ${time(dueAfter(schedule, now))}` }
}

const judge = async (schedule: Schedule, good: Date | undefined, { dueAfter }: HealthContext): Promise<Finding> => {
  const subject = `schedule ${schedule.name}`
  const why = await unusable(schedule)
  if (why !== undefined) return { subject, level: 'critical', message: `its backups cannot be compressed here: ${why}` }
  try {
    return judgeAge(schedule, good, new Date(), dueAfter)
  } catch (error) {
    return findingOf(subject, error)
  }
}

/** Every active schedule has a good backup that is not too old. */
export const schedulesCheck: Check = {
  name: 'schedules',
  needsCatalog: true,
  run: async (context) => {
    const { db } = await context.catalog()
    const active = (await listSchedules(db)).filter(({ is_active }) => is_active)
    if (active.length === 0) return [{ subject: 'schedules', level: 'healthy', message: 'none is active' }]
    const good = await newestGoodBackups(db)
    return Promise.all(active.map((schedule) => judge(schedule, good.get(schedule.id), context)))
  },
}
