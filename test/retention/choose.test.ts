import t from 'tap'
import type { Backup } from '../../src/retention/backup.js'
import { choose } from '../../src/retention/choose.js'
import { at, backup, DAY, given, kept, policy, reasonsOf, schedule } from './given.js'

const now = at('2026-11-24')
const ago = (days: number, hours = 0): Date => new Date(now.getTime() - days * DAY - hours * 3_600_000)
/** Backups 1 to n, one a day, the newest of today. */
const daily = (count: number, more: (day: number) => Partial<Backup> = () => ({})): Backup[] => Array.from({ length: count }, (_, day) => backup(day + 1, ago(day), more(day)))

t.test('days of the schedule and of a policy: what either keeps is kept', async (t) => {
  t.strictSame(kept(given(daily(10))), [1, 2], 'today and the day before')
  t.strictSame(kept(given(daily(10), { policies: [policy({ days: 4 })] })), [1, 2, 3, 4, 5])
  t.strictSame(kept(given(daily(10), { schedules: [schedule({ days: 6 })] })), [1, 2, 3, 4, 5, 6, 7])
  t.strictSame(kept(given(daily(10), { policies: [policy({ days: 2 }), policy({ id: 2, days: 3 })] })), [1, 2, 3, 4], 'of two policies the longer')
  t.strictSame(kept(given(daily(10), { policies: [policy({ days: 9, storage: 2 })] })), [1, 2, 3], 'one of another storage says nothing; without one there is a minimum of 3')
  t.strictSame(kept(given(daily(10), { policies: [policy({ days: 9, type: 'database_only' })] })), [1, 2, 3], 'nor does one for another type')
  t.strictSame(reasonsOf(given(daily(10)), 9), ['expired', 'expired', 'no_slot'])
})

t.test('slots keep the newest of each period', async (t) => {
  const hourly = Array.from({ length: 24 * 5 }, (_, hour) => backup(hour + 1, ago(0, hour)))
  // Noon: hours 0 to 12 are of today, 13 to 36 of the day before, and so on.
  t.strictSame(kept(given(hourly, { policies: [policy({ daily: 4, days: 1 })] })).filter((id) => id > 37), [38, 62])
  const years = Array.from({ length: 800 }, (_, day) => backup(day + 1, ago(day)))
  const byRule = (rule: string, choice = given(years, { policies: [policy({ weekly: 4, monthly: 12, yearly: 5 })] })) =>
    choose(choice).filter(({ reasons }) => reasons.some((reason) => reason.rule === rule)).map(({ backup: { startedAt } }) => startedAt.toISOString().slice(0, 10))
  t.strictSame(byRule('weekly'), ['2026-11-24', '2026-11-22', '2026-11-15', '2026-11-08'], 'weeks end on Sunday')
  t.strictSame(byRule('monthly').slice(0, 4), ['2026-11-24', '2026-10-31', '2026-09-30', '2026-08-31'])
  t.equal(byRule('monthly').length, 12)
  t.strictSame(byRule('yearly'), ['2026-11-24', '2025-12-31', '2024-12-31'])
})

t.test('days are those of the schedule', async (t) => {
  const backups = [backup(1, at('2026-11-25T07:00:00Z')), backup(2, at('2026-11-23T23:30:00Z')), backup(3, at('2026-11-23T22:30:00Z'))]
  const of = (timezone: string) => kept(given(backups, { schedules: [schedule({ timezone, days: 1 })], now: at('2026-11-25T08:00:00Z') }))
  t.strictSame(of('UTC'), [1], 'two days old')
  t.strictSame(of('Europe/Berlin'), [1, 2], 'half an hour after midnight, the day before')
  t.strictSame(of('Pacific/Kiritimati'), [1, 2, 3])
})

t.test('what is needed stays, whatever its age', async (t) => {
  const old = (more: (day: number) => Partial<Backup>) => daily(10, (day) => ({ startedAt: ago(100 + day), ...more(day) }))
  const third = (more: Partial<Backup>) => given(old((day) => (day === 2 ? more : {})))
  t.strictSame(kept(given(old(() => ({})))), [1], 'the newest good one')
  t.strictSame(reasonsOf(given(old(() => ({}))), 1), ['newest_good', 'minimum'])
  t.strictSame(kept(given(old(() => ({})), { policies: [policy({ min: 4 }), policy({ id: 2, min: 2 })] })), [1, 2, 3, 4], 'the minimum, of two policies the higher one')
  t.strictSame(kept(third({ pinned: true })), [1, 3])
  t.strictSame(kept(third({ readers: ['restore 7'] })), [1, 3])
  t.strictSame(kept(third({ foreign: true })), [1, 3])
  for (const state of ['live', 'verifying'] as const) t.ok(kept(third({ state })).includes(3), state)
  t.strictSame(kept(third({ offline: true })), [1, 3])
  t.strictSame(kept(third({ state: 'expiring', offline: true })), [1, 3])
  t.strictSame(kept(third({ startedAt: new Date(now.getTime() + 900 * DAY) })), [1, 3], 'one from the future is kept, and is not the newest of the others')
  t.strictSame(kept(given(old(() => ({})), { schedules: [schedule({ timezone: 'Europe/Atlantis' })] })).length, 10, 'nothing is deleted by a clock that does not exist')
  t.strictSame(kept(given(old(() => ({})), { schedules: [schedule({ days: 0 })] })).length, 10)
  for (const more of [{ days: 0 }, { min: 0 }, { daily: -1 }]) t.strictSame(kept(given(old(() => ({})), { policies: [policy(more)] })).length, 10, 'nor by rules that are none')
})

t.test('groups: one schedule, storage and type', async (t) => {
  const old = (id: number, more: Partial<Backup>) => backup(id, ago(100 + id), more)
  const backups = [
    old(1, {}), old(2, {}), old(3, { storage: 2, copy: true }), old(4, { storage: 2, copy: true }), old(5, { type: 'configuration' }), old(6, { type: 'configuration' }),
    old(7, { schedule: null, origin: 'removed a' }), old(8, { schedule: null, origin: 'removed a' }), old(9, { schedule: null, origin: 'before restore' }), old(10, { schedule: null, origin: 'before restore' }),
    old(11, { schedule: 2 }), old(12, { schedule: 2 }),
  ]
  const schedules = [schedule({ days: 1 }), schedule({ id: 2, name: 'other', days: 1 })]
  t.strictSame(kept(given(backups, { schedules, policies: [policy(), policy({ id: 2, storage: 2 })] })), [1, 3, 5, 7, 9, 11], 'the newest good one of each')
  t.strictSame(kept(given(backups, { schedules, policies: [policy()] })), [1, 3, 4, 5, 7, 9, 11], 'a copy goes by the policies of its own storage')
  const decisions = choose(given(backups, { schedules, policies: [policy({ id: 5 }), policy({ id: 6, type: 'configuration' })] }))
  t.strictSame(decisions.map((decision) => decision.policy), [5, 5, null, null, 6, 6, 5, 5, 5, 5, 5, 5])
  t.strictSame(kept(given([backup(1, ago(31), { schedule: null }), ...[30, 31, 32].map((day) => backup(day, ago(day), { schedule: null }))], { policies: [] })), [1, 30, 31], 'without schedule and policy: 30 days, and 3 at least')
})

// Each of these would lose the last good backup, or the last that is known to be good, without its rule.
t.test('interlock', async (t) => {
  const older = [backup(2, ago(40)), backup(3, ago(41)), backup(4, ago(42))]
  const newest = (more: Partial<Backup>) => given([backup(1, ago(0), more), ...older])
  t.strictSame(kept(newest({})), [1], 'with a good and verified newest one the older ones go')
  t.strictSame(kept(newest({ state: 'failed' })), [1, 2, 3, 4])
  t.strictSame(kept(newest({ state: 'corrupted' })), [1, 2, 3, 4])
  t.strictSame(kept(newest({ verified: false })), [1, 2, 3, 4], 'not verified, although that is asked for')
  t.strictSame(kept(newest({ state: 'verifying', verified: false })), [1, 2, 3, 4])
  t.strictSame(reasonsOf(newest({ verified: false }), 2), ['interlock'])
  t.strictSame(kept({ ...newest({ verified: false }), schedules: [schedule({ days: 1, verify: false })] }), [1], 'nobody asked')
  t.strictSame(kept(newest({ state: 'live' })), [1, 2], 'one under way has not ended yet: the one before it counts')
  t.strictSame(kept(newest({ state: 'cancelled' })), [1, 2], 'one that was cancelled says nothing')
  t.strictSame(kept(given([backup(1, ago(0), { state: 'cancelled' }), backup(5, ago(1), { state: 'failed' }), ...older])), [1, 5, 2, 3, 4])
  t.strictSame(kept(given([backup(1, ago(0), { state: 'cancelled' }), backup(5, ago(35), { state: 'failed' }), ...older])), [1, 5, 2, 3, 4], 'and what locks is kept too, or a second run would delete what the first one did not')

  const copies = [backup(12, ago(40), { storage: 2, copy: true }), backup(13, ago(41), { storage: 2, copy: true })]
  const policies = [policy(), policy({ id: 2, storage: 2 })]
  t.strictSame(kept({ ...newest({ state: 'failed' }), backups: [backup(1, ago(0), { state: 'failed' }), ...older, ...copies], policies }), [1, 2, 3, 4, 12, 13], 'a schedule whose newest backup failed keeps its copies too')
  t.strictSame(kept(given([backup(1, ago(0)), backup(11, ago(0), { storage: 2, copy: true, state: 'failed' }), ...older, ...copies], { policies })), [1, 11, 12, 13], 'a copy that failed keeps those of its storage')
  t.strictSame(kept(given([backup(1, ago(0), { schedule: null, verified: false }), ...older.map((one) => ({ ...one, schedule: null }))])), [1, 2, 3, 4], 'without a schedule, what the run itself asked for counts')
})

t.test('what failed never counts, and its record goes in time', async (t) => {
  const failures = (state: Backup['state']) => given([backup(1, ago(0)), backup(2, ago(1), { state }), backup(3, ago(50), { state }), backup(4, ago(60)), backup(5, ago(61))], { policies: [policy({ min: 2 })] })
  for (const state of ['failed', 'corrupted', 'cancelled'] as const) t.strictSame(kept(failures(state)), [1, 2, 4], state)
  t.strictSame(kept(given([backup(1, ago(50), { state: 'failed' }), backup(2, ago(60), { state: 'failed' })])), [1], 'but never the newest')
  t.strictSame(kept(given([backup(1, ago(50), { state: 'failed' }), backup(2, ago(60), { state: 'corrupted' })])), [1, 2], 'a damaged one is better than none')
  t.strictSame(kept(given([backup(1, ago(0)), backup(2, ago(0), { state: 'expiring' })])), [1], 'a deletion that has begun is ended')
  t.strictSame(kept(given([backup(1, ago(90)), backup(2, ago(80), { state: 'expiring' })])), [1], 'and is no good backup any more')
})
