import { CronExpressionParser } from 'cron-parser'
import { BackupdError, messageOf } from '../../errors.js'

const aliases = new Map([
  ['@yearly', '0 0 1 1 *'],
  ['@annually', '0 0 1 1 *'],
  ['@monthly', '0 0 1 * *'],
  ['@weekly', '0 0 * * 0'],
  ['@daily', '0 0 * * *'],
  ['@midnight', '0 0 * * *'],
  ['@hourly', '0 * * * *'],
])

const LONGEST_EXPRESSION = 100
const LONGEST_ZONE = 50

const invalidCron = (expression: string, why: string, cause?: unknown): BackupdError =>
  new BackupdError('schedule.cron_invalid', `"${expression}" is not a cron expression: ${why}`, {
    kind: 'usage',
    cause,
    hint: `Five fields (minute hour day month weekday), six with seconds first, or one of ${[...aliases.keys()].join(', ')}.`,
  })

const fieldsOf = (expression: string): string => {
  const text = expression.trim()
  if (text.length > LONGEST_EXPRESSION) throw invalidCron(expression, `longer than ${LONGEST_EXPRESSION} characters`)
  if (text.startsWith('@')) {
    const known = aliases.get(text.toLowerCase())
    if (known === undefined) throw invalidCron(expression, 'no such name')
    return known
  }
  const fields = text === '' ? 0 : text.split(/\s+/).length
  if (fields !== 5 && fields !== 6) throw invalidCron(expression, `it has ${fields} fields`)
  // H means "some value, anew at each parse" to the parser, which would make every daemon wait for another time.
  if (/(^|[\s,])H/i.test(text)) throw invalidCron(expression, 'H is not supported')
  return text
}

/** Checks that `zone` is an IANA time zone name; fails with `schedule.timezone_invalid`. */
export const checkTimezone = (zone: string): void => {
  let known = zone.length <= LONGEST_ZONE && !/^[+-]/.test(zone)
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone })
  } catch {
    known = false
  }
  if (!known) {
    throw new BackupdError('schedule.timezone_invalid', `"${zone}" is not a time zone`, { kind: 'usage', hint: 'Use a name of the IANA database such as UTC or Europe/Berlin.' })
  }
}

const wallClocks = new Map<string, Intl.DateTimeFormat>()

/** The wall clock of `zone` at `time`, written as if it were UTC, milliseconds. */
const wallClock = (time: number, zone: string): number => {
  let format = wallClocks.get(zone)
  if (format === undefined) {
    format = new Intl.DateTimeFormat('en-US', {
      timeZone: zone, hourCycle: 'h23', year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric', second: 'numeric',
    })
    wallClocks.set(zone, format)
  }
  const part: Record<string, number> = {}
  for (const { type, value } of format.formatToParts(time)) part[type] = Number(value)
  return Date.UTC(part['year'] ?? 0, (part['month'] ?? 1) - 1, part['day'] ?? 1, part['hour'] ?? 0, part['minute'] ?? 0, part['second'] ?? 0)
}

const HOUR = 3_600_000
const DAY = 24 * HOUR

const offsetAt = (time: number, zone: string): number => wallClock(time, zone) - Math.floor(time / 1000) * 1000

/** The first instant at which the zone's clock shows `wall`; in a gap the instant at which it would have, had it not been put forward. */
const firstInstant = (wall: number, zone: string): number => {
  const early = offsetAt(wall - DAY, zone)
  const late = offsetAt(wall + DAY, zone)
  const candidates = [wall - early, wall - late].sort((a, b) => a - b)
  return candidates.find((instant) => wallClock(instant, zone) === wall) ?? wall - early
}

/** The instant in (from, to] at which the zone's offset stops being that of `from`, to the second; `to` must have another offset. */
const transition = (from: number, to: number, zone: string): number => {
  const offset = offsetAt(from, zone)
  let [low, high] = [Math.floor(from / 1000), Math.ceil(to / 1000)]
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2)
    if (offsetAt(middle * 1000, zone) === offset) low = middle
    else high = middle
  }
  return high * 1000
}

/** The next wall time, written as if it were UTC, after `wall`. cron-parser computes it in UTC: on a clock with changes it misses runs in short gaps and gives up in some zones. */
const nextWall = (fields: string, expression: string, wall: number): number => {
  try {
    return CronExpressionParser.parse(fields, { tz: 'UTC', currentDate: new Date(wall) }).next().getTime()
  } catch (error) {
    throw invalidCron(expression, messageOf(error), error)
  }
}

/** Due by the clock on the wall: each matching local time once. */
const nextByWallClock = (next: (wall: number) => number, zone: string, from: number): number => {
  for (let wall = next(wallClock(from, zone)); ; wall = next(wall)) {
    const instant = firstInstant(wall, zone)
    if (instant > from) return instant
  }
}

/** Due by elapsed time, as "every half hour" means: on both passes of a repeated hour, and not in one that is leapt over. */
const nextByElapsedTime = (next: (wall: number) => number, zone: string, from: number): number => {
  const wall = next(wallClock(from, zone))
  const near = Math.max(from, wall - DAY - offsetAt(wall, zone))
  const instant = next(wallClock(near, zone)) - offsetAt(near, zone)
  if (offsetAt(instant, zone) === offsetAt(near, zone)) return instant
  const change = transition(near, instant, zone)
  return next(wallClock(change, zone) - 1000) - offsetAt(change, zone)
}

/**
 * The first time after `from` at which `expression` is due on the clock of `zone`. A local time that does not exist is due
 * once, later by what the clock was put forward; one that occurs twice is due at its first occurrence, unless the hour is a
 * wildcard. Fails with `schedule.cron_invalid` or `schedule.timezone_invalid`.
 */
export const nextRun = (expression: string, zone: string, from: Date): Date => {
  checkTimezone(zone)
  const fields = fieldsOf(expression)
  const next = (wall: number): number => nextWall(fields, expression, wall)
  const everyHour = fields.split(/\s+/).at(-4)?.includes('*') === true
  return new Date((everyHour ? nextByElapsedTime : nextByWallClock)(next, zone, from.getTime()))
}

/** The next `count` times after `from`. */
export const nextRuns = (expression: string, zone: string, from: Date, count: number): Date[] => {
  const runs: Date[] = []
  for (let at = from; runs.length < count; ) {
    at = nextRun(expression, zone, at)
    runs.push(at)
  }
  return runs
}
