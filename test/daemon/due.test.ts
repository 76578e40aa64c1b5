import fc from 'fast-check'
import t from 'tap'
import { decide } from '../../src/daemon/due.js'
import { nextRun } from '../../src/operation/settings/cron.js'

const day = 86_400_000
const limits = { catchUp: day, jitter: 0 }
const nightly = { id: 1, cron_expression: '0 2 * * *', timezone: 'Europe/Berlin' }
const at = (text: string): Date => new Date(text)

t.test('on time', (t) => {
  const due = at('2026-11-23T01:00:00Z')
  t.strictSame(decide(nightly, due, at('2026-11-23T01:00:03Z'), limits), { next: at('2026-11-24T01:00:00Z'), run: { scheduledFor: due, notBefore: due } })
  t.end()
})

t.test('missed, and made up for once', (t) => {
  const due = at('2026-11-20T01:00:00Z')
  const now = at('2026-11-23T12:00:00Z')
  const { next, run } = decide(nightly, due, now, limits)
  t.strictSame(next, at('2026-11-24T01:00:00Z'))
  t.match(run, { scheduledFor: at('2026-11-23T01:00:00Z'), notBefore: now, warning: 'made up for 4 runs missed since 2026-11-20T01:00:00Z: no daemon was running, or none could reach the catalog' })
  t.match(decide(nightly, at('2026-11-23T01:00:00Z'), now, limits).run?.warning, /^made up for 1 run missed/)
  t.match(decide(nightly, due, at('2026-11-23T01:00:01Z'), limits).run, { scheduledFor: at('2026-11-23T01:00:00Z'), warning: /^made up for 3 runs/ }, 'with one that is just due')
  t.end()
})

t.test('missed too long ago', (t) => {
  const now = at('2026-11-23T12:00:00Z')
  t.strictSame(decide(nightly, at('2026-11-20T01:00:00Z'), now, { catchUp: 3_600_000, jitter: 0 }), {
    next: at('2026-11-24T01:00:00Z'),
    skipped: '4 runs missed since 2026-11-20T01:00:00Z, the last one due at 2026-11-23T01:00:00Z: too long ago to be made up for',
  })
  t.match(decide(nightly, at('2026-11-23T01:00:00Z'), at('2026-11-23T01:00:30Z'), { catchUp: 0, jitter: 0 }).run, { scheduledFor: at('2026-11-23T01:00:00Z') }, 'a daemon that is a little late has missed nothing')
  t.end()
})

t.test('a year of every second takes no time', (t) => {
  const began = performance.now()
  const now = at('2026-11-23T12:00:00.500Z')
  const { next, run } = decide({ id: 1, cron_expression: '* * * * * *', timezone: 'UTC' }, at('2025-11-23T12:00:00Z'), now, limits)
  t.strictSame([next, run?.scheduledFor], [at('2026-11-23T12:00:01Z'), at('2026-11-23T12:00:00Z')])
  t.match(run?.warning, /1000 or more runs/)
  t.ok(performance.now() - began < 2_000)
  t.end()
})

t.test('jitter spreads schedules, each to its own place, and not into the next run', (t) => {
  const due = at('2026-11-23T01:00:00Z')
  const offset = (id: number, jitter: number): number => (decide({ ...nightly, id }, due, due, { catchUp: day, jitter }).run?.notBefore.getTime() ?? 0) - due.getTime()
  const offsets = Array.from({ length: 100 }, (_, id) => offset(id, 600_000))
  t.strictSame(offsets, Array.from({ length: 100 }, (_, id) => offset(id, 600_000)), 'the same every time')
  t.ok(offsets.every((value) => value >= 0 && value < 600_000))
  t.ok(new Set(offsets.map((value) => Math.floor(value / 60_000))).size >= 9, 'all over the ten minutes')
  const often = decide({ id: 7, cron_expression: '* * * * *', timezone: 'UTC' }, due, due, { catchUp: day, jitter: 3_600_000 })
  t.ok((often.run?.notBefore ?? due) < at('2026-11-23T01:00:30Z'))
  t.end()
})

t.test('whatever the expression and the outage: one run, the newest tick, and the next one after now', (t) => {
  const expressions = ['* * * * *', '*/7 * * * *', '30 2 * * *', '0 */5 * * *', '15 3 * * 1', '0 0 1 * *', '30 2 29 2 *']
  const zones = ['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe']
  fc.assert(fc.property(
    fc.constantFrom(...expressions), fc.constantFrom(...zones), fc.date({ min: at('2024-01-01T00:00:00Z'), max: at('2028-01-01T00:00:00Z'), noInvalidDate: true }),
    fc.integer({ min: 0, max: 40 * 86_400 }),
    (cron_expression, timezone, start, outage) => {
      const due = nextRun(cron_expression, timezone, start)
      const now = new Date(due.getTime() + outage * 1000)
      const { next, run, skipped } = decide({ id: 1, cron_expression, timezone }, due, now, limits)
      const tick = run?.scheduledFor
      if ((run === undefined) === (skipped === undefined)) return false
      if (next <= now || next.getTime() !== nextRun(cron_expression, timezone, now).getTime()) return false
      if (tick === undefined) return nextRun(cron_expression, timezone, new Date(now.getTime() - day)) > now
      // No tick lies between the one that runs and now, and none that runs is older than allowed.
      return tick >= due && tick <= now && nextRun(cron_expression, timezone, tick) > now && now.getTime() - tick.getTime() <= Math.max(day, 60_000)
    },
  ), { numRuns: 300 })
  t.end()
})
