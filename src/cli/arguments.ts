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
