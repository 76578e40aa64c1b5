import { newestFirst, type Backup, type PolicyRules, type ScheduleRules } from './backup.js'
import { interlockOf, type Interlock } from './interlock.js'

export interface Choice {
  backups: readonly Backup[]
  schedules: readonly ScheduleRules[]
  /** Active ones only. */
  policies: readonly PolicyRules[]
  now: Date
  /** Whose days count for backups without a schedule. */
  timezone: string
}

/** Backups of one schedule (or one origin), storage and type: those that may stand in for each other. */
export interface Group {
  members: Backup[]
  /** Its good backups that are not dated in the future, newest first. */
  good: Backup[]
  /** Its newest execution, whatever came of it. */
  newest: Backup | undefined
  schedule: ScheduleRules | undefined
  /** Those that are about it, the one for its type before the one for all types. */
  policies: PolicyRules[]
  zone: string
  locks: Interlock[]
}

const append = <K, V>(map: Map<K, V[]>, key: K, value: V): void => {
  const list = map.get(key)
  if (list === undefined) map.set(key, [value])
  else list.push(value)
}

const specificFirst = (a: PolicyRules, b: PolicyRules): number => Number(a.type === null) - Number(b.type === null) || a.id - b.id

/** Whether a backup takes part in what is counted: another program's does not, nor one that is being removed, nor one that a wrong clock dated. */
const counts = ({ foreign, state, startedAt }: Backup, now: Date): boolean => !foreign && state !== 'expiring' && startedAt <= now

/** The backups in their groups, with what each group has to go by. */
export const groupsOf = ({ backups, schedules, policies, now, timezone }: Choice): Group[] => {
  const byId = new Map(schedules.map((schedule) => [schedule.id, schedule]))
  const originals = new Map<number, Backup[]>()
  const groups = new Map<string, Backup[]>()
  for (const backup of backups) {
    append(groups, JSON.stringify([backup.storage, backup.schedule ?? backup.origin, backup.type]), backup)
    if (backup.schedule !== null && !backup.copy) append(originals, backup.schedule, backup)
  }
  const ofSchedule = new Map([...originals].map(([id, own]) => [id, interlockOf(own, byId.get(id), now)]))
  return [...groups.values()].map((members): Group => {
    const { schedule: id = null, storage, type } = members[0] ?? {}
    const schedule = id === null ? undefined : byId.get(id)
    const present = members.filter((backup) => counts(backup, now)).sort(newestFirst)
    const locks = [id === null ? undefined : ofSchedule.get(id), interlockOf(members, schedule, now)].filter((lock) => lock !== undefined)
    return {
      members, schedule,
      good: present.filter(({ state }) => state === 'good'),
      newest: present[0],
      policies: policies.filter((policy) => policy.storage === storage && (policy.type === null || policy.type === type)).sort(specificFirst),
      zone: schedule?.timezone ?? timezone,
      locks: locks.filter(({ cause }, at) => locks.findIndex((other) => other.cause.id === cause.id) === at),
    }
  })
}
