import { newestFirst, type Backup, type Decision, type PolicyRules, type Reason } from './backup.js'
import { groupsOf, type Choice, type Group } from './groups.js'
import { isTimezone, localDate } from './periods.js'

/** Good backups that are kept of each group where no policy says otherwise. */
export const DEFAULT_MINIMUM = 3
/** Days for which a backup is kept that neither a schedule nor a policy is about. */
export const DEFAULT_DAYS = 30

const slots = [
  { rule: 'daily', period: 'day' },
  { rule: 'weekly', period: 'week' },
  { rule: 'monthly', period: 'month' },
  { rule: 'yearly', period: 'year' },
] as const

const whole = (value: number, least: number): boolean => Number.isInteger(value) && value >= least

const usable = ({ days, daily, weekly, monthly, yearly, min }: PolicyRules): boolean =>
  whole(days, 1) && whole(min, 1) && [daily, weekly, monthly, yearly].every((count) => whole(count, 0))

/** Why nothing of a group can be judged: its rules are not rules. Nothing is deleted then. */
const unusable = ({ schedule, policies, zone }: Group): Reason[] => [
  ...(isTimezone(zone) ? [] : [{ rule: 'timezone_invalid', text: `"${zone}", the time zone of ${schedule?.name ?? 'its backups'}, is none` } as const]),
  ...(schedule !== undefined && !whole(schedule.days, 1) ? [{ rule: 'rules_invalid', text: `schedule ${schedule.name} keeps its backups for ${schedule.days} days, which is no number of days` } as const] : []),
  ...policies.filter((policy) => !usable(policy)).map(({ name }) => ({ rule: 'rules_invalid', text: `policy ${name} holds numbers that are zero or negative` }) as const),
]

/** For how many days each rule keeps every backup of a group. */
const horizons = ({ schedule, policies }: Group): { days: number; whose: string }[] => {
  const given = [
    ...(schedule === undefined ? [] : [{ days: schedule.days, whose: `schedule ${schedule.name}` }]),
    ...policies.map(({ name, days }) => ({ days, whose: `policy ${name}` })),
  ]
  return given.length > 0 ? given : [{ days: DEFAULT_DAYS, whose: 'no schedule and no policy' }]
}

/** What holds for a group's members one by one, computed once. */
interface Rules {
  group: Group
  now: Date
  horizons: ReturnType<typeof horizons>
  minimum: { count: number; whose: string }
  /** Where each good backup stands among them, the newest at 0. */
  places: Map<number, number>
  /** The slots that each backup fills, by its id. */
  filled: Map<number, Reason[]>
}

/** Gives each period that a policy reaches back to its newest good backup. */
const fillSlots = ({ good, policies, zone }: Group, now: Date): Rules['filled'] => {
  const filled = new Map<number, Reason[]>()
  const today = localDate(now, zone)
  for (const policy of policies) {
    for (const { rule, period } of slots) {
      const taken = new Set<number>()
      for (const { id, startedAt } of good) {
        const at = localDate(startedAt, zone)[period]
        if (today[period] - at >= policy[rule]) break
        if (taken.has(at)) continue
        taken.add(at)
        filled.set(id, [...(filled.get(id) ?? []), { rule, text: `the newest of its ${period} (policy ${policy.name}: ${policy[rule]} ${period}s)` }])
      }
    }
  }
  return filled
}

const rulesOf = (group: Group, now: Date): Rules => {
  const [first, ...others] = group.policies
  const most = first === undefined ? undefined : others.reduce((best, policy) => (policy.min > best.min ? policy : best), first)
  return {
    group, now,
    horizons: horizons(group),
    minimum: most === undefined ? { count: DEFAULT_MINIMUM, whose: 'the default' } : { count: most.min, whose: `policy ${most.name}` },
    places: new Map(group.good.map(({ id }, place) => [id, place])),
    filled: fillSlots(group, now),
  }
}

/** What keeps a backup whatever it is. */
const always = ({ pinned, readers, state, foreign, startedAt, offline }: Backup, now: Date): Reason[] => [
  ...(offline ? [{ rule: 'storage_disabled', text: 'its storage is disabled' } as const] : []),
  ...(foreign ? [{ rule: 'foreign', text: 'another program made it' } as const] : []),
  ...(pinned ? [{ rule: 'pinned', text: 'pinned' } as const] : []),
  ...readers.map((reader) => ({ rule: 'read', text: `${reader} reads it` }) as const),
  ...(state === 'live' || state === 'verifying' ? [{ rule: 'live', text: state === 'live' ? 'it is under way' : 'it is being verified' } as const] : []),
  ...(startedAt > now ? [{ rule: 'future', text: 'it is dated in the future: a clock was wrong' } as const] : []),
]

const ageReasons = ({ group, horizons: all, now }: Rules, backup: Backup): { kept: Reason[]; over: Reason[] } => {
  const age = localDate(now, group.zone).day - localDate(backup.startedAt, group.zone).day
  return {
    kept: all.filter(({ days }) => age <= days).map(({ days, whose }) => ({ rule: 'days', text: `not older than ${days} days (${whose})` })),
    over: all.filter(({ days }) => age > days).map(({ days, whose }) => ({ rule: 'expired', text: `${age} days old, more than ${days} (${whose})` })),
  }
}

const goodReasons = ({ group, minimum, places, filled }: Rules, backup: Backup): Reason[] => {
  const place = places.get(backup.id) ?? Infinity
  const behind = group.locks.filter(({ cause }) => newestFirst(cause, backup) < 0)
  return [
    ...(place === 0 ? [{ rule: 'newest_good', text: 'the newest good one' } as const] : []),
    ...(place < minimum.count ? [{ rule: 'minimum', text: `one of the ${minimum.count} good ones to keep (${minimum.whose})` } as const] : []),
    ...(filled.get(backup.id) ?? []),
    ...behind.map(({ text }) => ({ rule: 'interlock', text }) as const),
  ]
}

// Of a run without a backup only the record is kept: as long as its backup would have been, and as long as it is what an interlock goes by.
const traceReasons = ({ group }: Rules, backup: Backup): Reason[] => [
  ...(group.newest === backup ? [{ rule: 'newest_run', text: 'the newest run' } as const] : []),
  ...group.locks.filter(({ cause }) => cause.id === backup.id).map(() => ({ rule: 'interlock', text: 'older good ones are kept because of it' }) as const),
  ...(backup.state === 'corrupted' && !group.good.some((good) => newestFirst(good, backup) < 0) ? [{ rule: 'last_trace', text: 'damaged, and there is no newer good one' } as const] : []),
]

const decide = (rules: Rules | undefined, broken: readonly Reason[], backup: Backup, now: Date): Omit<Decision, 'policy'> => {
  if (backup.state === 'expiring' && !backup.offline) return { backup, keep: false, reasons: [{ rule: 'unfinished', text: 'its deletion has begun and did not end' }] }
  const fixed = always(backup, now)
  if (rules === undefined || backup.state === 'expiring') return { backup, keep: true, reasons: [...fixed, ...broken] }
  const { kept, over } = ageReasons(rules, backup)
  const good = backup.state === 'good'
  const reasons = [...fixed, ...(good ? goodReasons(rules, backup) : traceReasons(rules, backup)), ...kept]
  if (reasons.length > 0) return { backup, keep: true, reasons }
  const { policies } = rules.group
  const noSlot = good && policies.length > 0 ? [{ rule: 'no_slot', text: `in no slot of ${policies.map(({ name }) => `policy ${name}`).join(', ')}` } as const] : []
  return { backup, keep: false, reasons: [...(good ? [] : [{ rule: 'expired', text: backup.state } as const]), ...over, ...noSlot] }
}

/**
 * Says of every execution whether it is kept or deleted, and by which rules: a pure function of what is given. What any rule keeps is
 * kept. Decisions come in the order of `backups`.
 */
export const choose = (choice: Choice): Decision[] => {
  const decided = new Map<number, Decision>()
  for (const group of groupsOf(choice)) {
    const broken = unusable(group)
    const rules = broken.length > 0 ? undefined : rulesOf(group, choice.now)
    for (const backup of group.members) {
      decided.set(backup.id, { ...decide(rules, broken, backup, choice.now), policy: group.policies[0]?.id ?? null })
    }
  }
  return choice.backups.flatMap(({ id }) => decided.get(id) ?? [])
}
