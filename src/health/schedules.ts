import { newestGoodBackups } from '../catalog/executions.js'
import { runningSchedules } from '../catalog/observations.js'
import { isManaged, type Schedule } from '../catalog/schedules.js'
import { compressionTypes } from '../catalog/statuses.js'
import { codecs } from '../compression/registry.js'
import { findingOf, type Check, type Finding, type HealthContext } from './check.js'
import { shellWord } from '../shell.js'

const time = (at: Date): string => at.toISOString().replace(/\.\d+Z$/, 'Z')

/** Time that a run has from when it is due until it counts as missing, milliseconds: as long as to the next one, within these. */
const shortestGrace = 600_000
const longestGrace = 3_600_000

interface Runs {
  /** When the newest good backup was begun. */
  good: Date | undefined
  /** When the run that goes on was due, or begun. */
  running: Date | undefined
}

const unusable = async (schedule: Schedule): Promise<string | undefined> => {
  const type = compressionTypes.find((name) => name === schedule.compression_type)
  return type === undefined ? `compression "${schedule.compression_type}" is not known` : codecs[type].unavailable()
}

// One run that failed may be made good by the next; two that were due without a good backup are a hole.
const judgeAge = (schedule: Schedule, { good, running }: Runs, now: Date, dueAfter: HealthContext['dueAfter']): Omit<Finding, 'subject'> => {
  // A schedule that was changed or switched on again is judged from then on.
  const changed = schedule.updated_at ?? schedule.created_at
  const since = good !== undefined && good > changed ? good : changed
  const due = dueAfter(schedule, since)
  const second = dueAfter(schedule, due)
  const grace = Math.max(shortestGrace, Math.min(longestGrace, second.getTime() - due.getTime()))
  const last = good === undefined ? 'it has no good backup yet' : `its last good backup began at ${time(good)}`
  const failed = schedule.last_status === 'failed' || schedule.last_status === 'corrupted'
  const advice = `See "backupd list --schedule ${shellWord(schedule.name)}" and the daemon's log.`
  const metrics = {
    last_good_at: good?.toISOString() ?? null, due_at: due.toISOString(), overdue_seconds: Math.max(0, Math.round((now.getTime() - due.getTime()) / 1000)),
    last_status: schedule.last_status, overdue: false,
  }
  // What is being made is not missing yet; whether it moves is watched by its worker.
  if (running !== undefined && running >= due) return { level: 'healthy', message: `${last}; a run has been going on since ${time(running)}`, metrics }
  if (second.getTime() + grace < now.getTime()) return { level: 'critical', message: `${last}, though it was due at ${time(due)} and ${time(second)}`, advice, metrics: { ...metrics, overdue: true } }
  const late = due.getTime() + grace < now.getTime()
  if (failed) return { level: 'warning', message: `its last run ended as ${schedule.last_status ?? ''}; ${last}`, advice, metrics: { ...metrics, overdue: late } }
  if (late) return { level: 'warning', message: `${last}, though it was due at ${time(due)}`, advice, metrics: { ...metrics, overdue: true } }
  return { level: 'healthy', metrics, message: `${last}; next at ${time(dueAfter(schedule, now))}` }
}

const judge = async (schedule: Schedule, runs: Runs, { dueAfter }: HealthContext): Promise<Finding> => {
  const about = { subject: `schedule ${schedule.name}`, target: { type: 'schedule', id: schedule.id } } as const
  const why = await unusable(schedule)
  if (why !== undefined) return { ...about, level: 'critical', message: `its backups cannot be compressed here: ${why}` }
  try {
    return { ...about, ...judgeAge(schedule, runs, new Date(), dueAfter) }
  } catch (error) {
    return { ...findingOf(about.subject, error), target: about.target }
  }
}

/** Every active schedule has a good backup that is not too old. */
export const schedulesCheck: Check = {
  name: 'schedules',
  type: 'schedule',
  scope: 'shared',
  needsCatalog: true,
  run: async (context) => {
    const { db } = await context.catalog()
    const storages = new Set((await context.storages()).map(({ row }) => row.id))
    const rests = (schedule: Schedule): boolean => isManaged(schedule) && (!context.config.catalogBackup || !storages.has(schedule.storage_backend_id))
    const active = (await context.schedules()).filter((schedule) => schedule.is_active && !rests(schedule))
    if (active.length === 0) return [{ subject: 'schedules', level: 'healthy', message: 'none is active' }]
    const good = await newestGoodBackups(db)
    const running = await runningSchedules(db)
    return Promise.all(active.map((schedule) => judge(schedule, { good: good.get(schedule.id), running: running.get(schedule.id) }, context)))
  },
}
