import fc from 'fast-check'
import t from 'tap'
import { checkTimezone, nextRun, nextRuns } from '../../../src/operation/settings/cron.js'
import { BackupdError } from '../../../src/errors.js'

const runs = (expression: string, zone: string, from: string, count: number): string[] =>
  nextRuns(expression, zone, new Date(from), count).map((time) => time.toISOString().slice(0, 16))

t.test('five and six fields, names, ranges, steps and aliases', (t) => {
  const from = '2026-11-23T00:00:00Z'
  t.same(runs('0 2 * * *', 'UTC', from, 2), ['2026-11-23T02:00', '2026-11-24T02:00'])
  t.same(runs('*/20 1-2 * * *', 'UTC', from, 4), ['2026-11-23T01:00', '2026-11-23T01:20', '2026-11-23T01:40', '2026-11-23T02:00'])
  t.same(runs('0 2 * jan MON-fri', 'UTC', from, 2), ['2027-01-01T02:00', '2027-01-04T02:00'])
  t.same(runs('@daily', 'UTC', from, 1), ['2026-11-24T00:00'])
  t.same(runs('@midnight', 'UTC', from, 1), ['2026-11-24T00:00'])
  t.same(runs('@Weekly', 'UTC', from, 1), ['2026-11-29T00:00'])
  t.equal(nextRun('*/10 * * * * *', 'UTC', new Date(from)).toISOString(), '2026-11-23T00:00:10.000Z')
  t.end()
})

t.test('what is not a cron expression or a time zone is refused as wrong usage', (t) => {
  for (const expression of ['', '* * * *', '61 * * * *', '0 0 30 2 *', '@every 5m', '@reboot', 'H 2 * * *', '0 2 * * * * *', 'daily', '0 2 * * *; rm', `0 2 ${'1,'.repeat(60)}1 * *`]) {
    t.throws(() => nextRun(expression, 'UTC', new Date()), { code: 'schedule.cron_invalid', kind: 'usage' }, expression)
  }
  for (const zone of ['Mars/Olympus', '', '+02:00', 'UTC+2', `Europe/${'x'.repeat(60)}`]) {
    t.throws(() => checkTimezone(zone), { code: 'schedule.timezone_invalid', kind: 'usage' }, zone)
  }
  t.end()
})

t.test('a local time that does not exist runs once, one that occurs twice runs once', (t) => {
  t.same(runs('30 2 * * *', 'Europe/Berlin', '2026-03-28T12:00:00Z', 2), ['2026-03-29T01:30', '2026-03-30T00:30'])
  t.same(runs('30 2 * * *', 'Europe/Berlin', '2026-10-24T12:00:00Z', 2), ['2026-10-25T00:30', '2026-10-26T01:30'])
  t.same(runs('30 1 * * *', 'America/New_York', '2026-10-31T12:00:00Z', 2), ['2026-11-01T05:30', '2026-11-02T06:30'])
  t.same(runs('0 0 * * *', 'America/Sao_Paulo', '2018-11-03T12:00:00Z', 2), ['2018-11-04T03:00', '2018-11-05T02:00'])
  t.same(runs('15 2 * * *', 'Australia/Lord_Howe', '2026-10-02T20:00:00Z', 2), ['2026-10-03T15:45', '2026-10-04T15:15'], 'a gap of half an hour')
  t.end()
})

t.test('what runs every half hour does so through both changes', (t) => {
  t.same(runs('*/30 * * * *', 'Europe/Berlin', '2026-10-24T23:50:00Z', 4), ['2026-10-25T00:00', '2026-10-25T00:30', '2026-10-25T01:00', '2026-10-25T01:30'])
  t.same(runs('*/30 * * * *', 'Europe/Berlin', '2026-03-29T00:20:00Z', 3), ['2026-03-29T00:30', '2026-03-29T01:00', '2026-03-29T01:30'])
  t.end()
})

t.test('a daily schedule has exactly one run for each local day, in every zone', (t) => {
  const zones = ['UTC', 'Europe/Berlin', 'America/New_York', 'America/Sao_Paulo', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'Pacific/Chatham', 'Africa/Casablanca']
  fc.assert(
    fc.property(fc.constantFrom(...zones), fc.nat(23), fc.nat(59), fc.integer({ min: 0, max: 360 }), (zone, hour, minute, day) => {
      const day0 = new Date(Date.UTC(2026, 0, 1 + day))
      const local = nextRuns(`${minute} ${hour} * * *`, zone, day0, 12).map((time) => new Intl.DateTimeFormat('sv', { timeZone: zone }).format(time))
      const days = new Set(local)
      if (days.size !== local.length) throw new Error(`${zone} ${hour}:${minute} runs twice: ${local.join(' ')}`)
      const first = Date.parse(local[0] ?? '')
      local.forEach((text, at) => {
        if (Date.parse(text) !== first + at * 86_400_000) throw new Error(`${zone} ${hour}:${minute} misses a day: ${local.join(' ')}`)
      })
    }),
    { numRuns: 300 },
  )
  t.end()
})

t.test('the error is one of ours', (t) => {
  try {
    nextRun('nonsense', 'UTC', new Date())
    t.fail('must throw')
  } catch (error) {
    t.type(error, BackupdError)
  }
  t.end()
})
