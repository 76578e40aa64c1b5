import { createHash } from 'node:crypto'
import type { Schedule } from '../catalog/schedules.js'
import { nextRun } from '../operation/settings/cron.js'

/** A run later than this was missed: daemons look every few seconds. */
const LATE = 60_000
/** Counting stops here: "every second" for a year is not worth it. */
const MOST_COUNTED = 1_000

export interface Run {
  /** The tick, by which it fires once. */
  scheduledFor: Date
  notBefore: Date
  /** Set when runs were missed. */
  warning?: string
}

export interface Decision {
  next: Date
  run?: Run
  /** Runs were missed and are not made up for. */
  skipped?: string
}

export interface Limits {
  /** How far back a missed run is made up for, milliseconds. */
  catchUp: number
  /** Runs are spread over this many milliseconds. */
  jitter: number
}

const iso = (time: Date): string => time.toISOString().replace('.000Z', 'Z')

/** The last time in [from, now] at which `next` is due; `from` is such a time. Looks back from now in growing steps, because there may be very many. */
const newest = (next: (from: Date) => Date, from: Date, now: Date): Date => {
  let start = from
  for (let back = 60_000; now.getTime() - back > from.getTime(); back *= 4) {
    const found = next(new Date(now.getTime() - back))
    if (found <= now) {
      start = found
      break
    }
  }
  for (let at = start; ; ) {
    const following = next(at)
    if (following > now) return at
    at = following
  }
}

const countBetween = (next: (from: Date) => Date, from: Date, to: Date): number => {
  let count = 0
  for (let at = from; at < to && count < MOST_COUNTED; at = next(at)) count += 1
  return count
}

const runs = (count: number): string => (count === 1 ? '1 run' : count >= MOST_COUNTED ? `${MOST_COUNTED} or more runs` : `${count} runs`)

/** A fixed share of [0, 1) for a schedule, so that it starts at the same offset every time. */
const share = (id: number): number => createHash('sha256').update(`schedule ${id}`).digest().readUInt32BE() / 2 ** 32

/** When to begin: spread by the jitter, but not into the next run's time. */
const spread = (schedule: Pick<Schedule, 'id'>, earliest: Date, tick: Date, next: Date, jitter: number): Date =>
  new Date(earliest.getTime() + Math.floor(share(schedule.id) * Math.min(jitter, (next.getTime() - tick.getTime()) / 2)))

/**
 * What is to be done about a schedule whose `next_run_at` is `due`, at `now` (the database's clock). However many runs were missed,
 * the newest alone is made up for, and only within `catchUp`. Fails with `schedule.cron_invalid` or `schedule.timezone_invalid`.
 */
export const decide = (schedule: Pick<Schedule, 'id' | 'cron_expression' | 'timezone'>, due: Date, now: Date, { catchUp, jitter }: Limits): Decision => {
  const next = (from: Date): Date => nextRun(schedule.cron_expression, schedule.timezone, from)
  const following = next(now)
  const tick = newest(next, due, now)
  const late = now.getTime() - tick.getTime()
  const earlier = countBetween(next, due, tick)
  if (late > LATE && late > catchUp) {
    return { next: following, skipped: `${runs(earlier + 1)} missed since ${iso(due)}, the last one due at ${iso(tick)}: too long ago to be made up for` }
  }
  const begin = late > LATE ? now : tick
  const run = { scheduledFor: tick, notBefore: spread(schedule, begin, tick, following, jitter) }
  const missed = earlier + (late > LATE ? 1 : 0)
  return missed === 0 ? { next: following, run } : { next: following, run: { ...run, warning: `made up for ${runs(missed)} missed since ${iso(due)}: no daemon was running, or none could reach the catalog` } }
}
