import fc from 'fast-check'
import t from 'tap'
import { backupStates, newestFirst, type Backup } from '../../src/retention/backup.js'
import { choose } from '../../src/retention/choose.js'
import type { Choice } from '../../src/retention/groups.js'
import { localDate } from '../../src/retention/periods.js'
import { at } from './given.js'

const zones = ['UTC', 'Europe/Berlin', 'America/New_York', 'America/St_Johns', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'Pacific/Apia', 'Pacific/Kiritimati', 'Africa/Casablanca', 'Europe/Atlantis']
const span = { min: at('2011-06-01'), max: at('2012-06-01'), noInvalidDate: true }

// Around the change of clocks, and the day that Samoa left out; close together, with duplicates and gaps.
const moment = fc.oneof(
  fc.date(span),
  fc.tuple(fc.constantFrom('2011-10-30T00:00:00Z', '2012-03-25T00:00:00Z', '2011-12-30T09:00:00Z', '2011-12-31T23:00:00Z', '2012-02-29T12:00:00Z'), fc.integer({ min: -8, max: 8 }))
    .map(([near, quarters]) => new Date(at(near).getTime() + quarters * 900_000)),
)
const maybe = (of: number) => fc.integer({ min: 1, max: of }).map((value) => value === 1)
const anyBackup: fc.Arbitrary<Backup> = fc.record({
  id: fc.constant(0), schedule: fc.constantFrom(1, 1, 1, 2, null), origin: fc.constantFrom('a', 'b'), storage: fc.constantFrom(1, 1, 1, 2), type: fc.constantFrom('full', 'full', 'database_only'),
  copy: maybe(5), startedAt: moment, state: fc.oneof({ weight: 6, arbitrary: fc.constant('good' as const) }, { weight: 4, arbitrary: fc.constantFrom(...backupStates) }), verified: maybe(2), verify: maybe(2), pinned: maybe(15),
  readers: fc.constantFrom<string[]>([], [], [], [], [], [], [], [], ['restore 1']), foreign: maybe(15), offline: maybe(25),
})
const count = fc.integer({ min: 0, max: 6 })
const anyPolicy = fc.record({
  id: fc.constant(0), name: fc.constant('p'), storage: fc.constantFrom(1, 1, 2), type: fc.constantFrom(null, null, 'full', 'database_only'),
  days: fc.integer({ min: 1, max: 30 }), daily: count, weekly: count, monthly: count, yearly: count, min: fc.integer({ min: 1, max: 5 }),
})
const anyChoice: fc.Arbitrary<Choice> = fc.record({
  backups: fc.array(anyBackup, { maxLength: 60 }).map((list) => list.map((one, at) => ({ ...one, id: at + 1 }))),
  schedules: fc.tuple(fc.constantFrom(...zones), fc.constantFrom(...zones), fc.integer({ min: 1, max: 60 }), maybe(2))
    .map(([one, two, days, verify]) => [{ id: 1, name: 'one', timezone: one, days, verify }, { id: 2, name: 'two', timezone: two, days: 3, verify: false }]),
  policies: fc.array(anyPolicy, { maxLength: 3 }).map((list) => list.map((one, at) => ({ ...one, id: at + 1 }))),
  // Also long after, and before: the clock may be set at any time.
  now: fc.oneof(moment, fc.constantFrom(at('2012-06-01'), at('2036-01-01'), at('2010-01-01'))),
  timezone: fc.constantFrom('UTC', 'Asia/Tokyo'),
})

const groupKey = ({ schedule, origin, storage, type }: Backup): string => JSON.stringify([schedule ?? origin, storage, type])
const keptOf = (choice: Choice): Set<number> => new Set(choose(choice).filter(({ keep }) => keep).map(({ backup }) => backup.id))
/** The good ones of each group that are not from the future, newest first. */
const goodByGroup = ({ backups, now }: Choice): Backup[][] => {
  const groups = new Map<string, Backup[]>()
  for (const one of [...backups].sort(newestFirst)) {
    if (one.state === 'good' && !one.foreign && one.startedAt <= now) groups.set(groupKey(one), [...(groups.get(groupKey(one)) ?? []), one])
  }
  return [...groups.values()]
}
const about = ({ policies }: Choice, { storage, type }: Backup) => policies.filter((policy) => policy.storage === storage && (policy.type === null || policy.type === type))
const zoneOf = ({ schedules, timezone }: Choice, { schedule }: Backup): string => schedules.find(({ id }) => id === schedule)?.timezone ?? timezone

const holds = (what: string, predicate: (choice: Choice) => boolean): void => {
  t.test(what, async () => fc.assert(fc.property(anyChoice, predicate), { numRuns: 400 }))
}

holds('every execution has one decision, with reasons', (choice) => {
  const decisions = choose(choice)
  return decisions.length === choice.backups.length && decisions.every(({ backup, reasons }, place) => backup === choice.backups[place] && reasons.length > 0)
})

holds('the newest good backup of every group stays, and the minimum', (choice) => {
  const kept = keptOf(choice)
  return goodByGroup(choice).every((good) => {
    const [newest] = good
    if (newest === undefined) return true
    const least = Math.max(...about(choice, newest).map(({ min }) => min), 0) || 3
    return good.slice(0, least).every(({ id }) => kept.has(id))
  })
})

holds('what is pinned, read, under way, foreign or out of reach stays', (choice) => {
  const kept = keptOf(choice)
  return choice.backups.every((one) => one.state === 'expiring' || kept.has(one.id) || !(one.pinned || one.readers.length > 0 || one.foreign || one.offline || one.state === 'live' || one.state === 'verifying'))
})

holds('a second run deletes nothing', (choice) => {
  const kept = keptOf(choice)
  const rest = { ...choice, backups: choice.backups.filter(({ id }) => kept.has(id)) }
  return keptOf(rest).size === rest.backups.length
})

holds('each slot is filled by the newest good backup of its period', (choice) => {
  const kept = keptOf(choice)
  return goodByGroup(choice).every((good) => good.every((one, place) => {
    const zone = zoneOf(choice, one)
    if (zone === 'Europe/Atlantis') return kept.has(one.id)
    const [date, today] = [localDate(one.startedAt, zone), localDate(choice.now, zone)]
    const first = (period: keyof typeof date): boolean => !good.slice(0, place).some((newer) => localDate(newer.startedAt, zone)[period] === date[period])
    return about(choice, one).every(({ daily, weekly, monthly, yearly }) =>
      ([['day', daily], ['week', weekly], ['month', monthly], ['year', yearly]] as const).every(([period, reach]) => today[period] - date[period] >= reach || !first(period) || kept.has(one.id)))
  }))
})

holds('a good backup that is deleted has newer good ones, and its schedule is in order', (choice) => {
  const kept = keptOf(choice)
  return goodByGroup(choice).every((good) => {
    const deleted = good.filter(({ id }) => !kept.has(id))
    const [newest] = good
    if (deleted.length === 0 || newest === undefined) return true
    const last = [...choice.backups].sort(newestFirst).find((one) => groupKey(one) === groupKey(newest) && !one.foreign && one.startedAt <= choice.now && !['live', 'cancelled', 'expiring'].includes(one.state))
    const asks = choice.schedules.find(({ id }) => id === newest.schedule)?.verify ?? last?.verify === true
    return kept.has(newest.id) && last?.state === 'good' && (last.verified || !asks)
  })
})

holds('the order in which they are given does not matter', (choice) => {
  const kept = keptOf(choice)
  const turned = keptOf({ ...choice, backups: [...choice.backups].reverse() })
  return kept.size === turned.size && [...kept].every((id) => turned.has(id))
})

t.test('day by day, with failures and a clock that is set: never below the minimum', async () => {
  const step = fc.record({ hours: fc.oneof({ weight: 9, arbitrary: fc.integer({ min: 1, max: 60 }) }, { weight: 1, arbitrary: fc.integer({ min: -200, max: 2_000 }) }), fails: maybe(5), verified: fc.boolean() })
  fc.assert(fc.property(fc.constantFrom(...zones.slice(0, -1)), fc.array(step, { minLength: 5, maxLength: 80 }), fc.integer({ min: 1, max: 4 }), (timezone, steps, min) => {
    const schedules = [{ id: 1, name: 'one', timezone, days: 2, verify: true }]
    const policies = [{ id: 1, name: 'p', storage: 1, type: null, days: 2, daily: 3, weekly: 2, monthly: 2, yearly: 1, min }]
    let [backups, now, made, id] = [[] as Backup[], at('2011-10-20'), 0, 0]
    for (const { hours, fails, verified } of steps) {
      now = new Date(now.getTime() + hours * 3_600_000)
      id += 1
      if (!fails) made += 1
      backups.push({ id, schedule: 1, origin: '', storage: 1, type: 'full', copy: false, startedAt: now, state: fails ? 'failed' : 'good', verified, verify: true, pinned: false, readers: [], foreign: false, offline: false })
      const kept = keptOf({ backups, schedules, policies, now, timezone: 'UTC' })
      backups = backups.filter((one) => kept.has(one.id))
      if (backups.filter(({ state }) => state === 'good').length < Math.min(min, made)) return false
    }
    return true
  }), { numRuns: 200 })
})
