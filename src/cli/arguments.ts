import { InvalidArgumentError } from 'commander'

/** A parser for a whole number from `min` to `max`. */
export const wholeNumber = (min: number, max: number) => (text: string): number => {
  const value = Number(text)
  if (/^\d+$/.test(text) && value >= min && value <= max) return value
  throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`)
}

/** Collects an option that may be given several times. */
export const repeated = (text: string, before: readonly string[]): string[] => [...before, text]

/** A parser for one or more of `values`, with commas between them. */
export const someOf = <T extends string>(values: readonly T[]) => (text: string): T[] =>
  text.split(',').map((word) => {
    const known = values.find((value) => value === word.trim())
    if (known === undefined) throw new InvalidArgumentError(`It must be one or more of ${values.join(', ')}, with commas between them.`)
    return known
  })

const units: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 }

/** A parser for a moment: ISO 8601 (UTC unless it says otherwise), or how long ago, such as `90m`, `12h`, `30d`, `4w`. */
export const moment = (text: string): Date => {
  const ago = /^(\d{1,6})([mhdw])$/.exec(text)
  if (ago !== null) return new Date(Date.now() - Number(ago[1]) * (units[ago[2] ?? ''] ?? 0))
  const iso = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d)?)?$/.exec(text)
  const time = iso === null ? NaN : Date.parse(iso[1] !== undefined && iso[4] === undefined ? `${text}Z` : text)
  if (!Number.isNaN(time)) return new Date(time)
  throw new InvalidArgumentError('It must be a time such as 2026-11-24 or 2026-11-24T15:00:00Z, or how long ago, such as 12h or 30d.')
}
