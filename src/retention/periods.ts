/** The day that the clock of a zone shows, and the periods that it is in, as numbers that grow by one from each to the next. */
export interface LocalDate {
  day: number
  /** Begins on Monday, as in ISO 8601. */
  week: number
  month: number
  year: number
}

const DAY = 86_400_000
// Day 0, 1 January 1970, was a Thursday.
const MONDAY = 3

const formats = new Map<string, Intl.DateTimeFormat | undefined>()
const known = new Map<string, WeakMap<Date, LocalDate>>()

const formatOf = (zone: string): Intl.DateTimeFormat | undefined => {
  if (formats.has(zone)) return formats.get(zone)
  let format: Intl.DateTimeFormat | undefined
  try {
    // An offset is no zone of a schedule either.
    format = /^[+-]/.test(zone) ? undefined : new Intl.DateTimeFormat('en-US', { timeZone: zone, calendar: 'gregory', numberingSystem: 'latn', year: 'numeric', month: 'numeric', day: 'numeric' })
  } catch {
    format = undefined
  }
  formats.set(zone, format)
  return format
}

/** Whether `zone` is a name of the IANA database that this Node.js knows. */
export const isTimezone = (zone: string): boolean => formatOf(zone) !== undefined

const computed = (time: Date, format: Intl.DateTimeFormat): LocalDate => {
  const part: Record<string, number> = {}
  for (const { type, value } of format.formatToParts(time)) part[type] = Number(value)
  const [year = 0, month = 1, dayOfMonth = 1] = [part['year'], part['month'], part['day']]
  const day = Date.UTC(year, month - 1, dayOfMonth) / DAY
  return { day, week: Math.floor((day + MONDAY) / 7), month: year * 12 + month - 1, year }
}

/** The local date at `time`. The same Date is computed once only. Fails with a RangeError for a zone that is none. */
export const localDate = (time: Date, zone: string): LocalDate => {
  const format = formatOf(zone)
  if (format === undefined) throw new RangeError(`${zone} is not a time zone`)
  const cache = known.get(zone) ?? new WeakMap<Date, LocalDate>()
  known.set(zone, cache)
  const found = cache.get(time) ?? computed(time, format)
  cache.set(time, found)
  return found
}
