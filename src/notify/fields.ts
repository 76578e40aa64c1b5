import { z } from 'zod'

// Keys of a notifier's configuration. The command line and references give text where JSON has numbers and booleans.

/** Text that is not empty. */
export const text = z.string('text').min(1, 'text that is not empty')

/** Text that fits into one header line. */
export const line = text.refine((value) => !/\p{Cc}/u.test(value), 'one line of text')

const webUrl = (value: string): boolean => /^https?:\/\/[^/]/i.test(value) && URL.canParse(value)

/** An http or https URL. */
export const url = text.refine(webUrl, 'a URL such as https://example.org/path')

/** A whole number from `min` to `max`, also as text. */
export const wholeNumber = (min: number, max: number) => {
  const expected = `a whole number from ${min} to ${max}`
  return z.union([z.number(), z.string().regex(/^\d+$/).transform(Number)], expected)
    .refine((value) => Number.isInteger(value) && value >= min && value <= max, expected)
}

/** One of `values`. */
export const oneOf = <const T extends readonly string[]>(values: T) => z.enum(values, `one of ${values.join(', ')}`)

/** One mail address, or several with commas between them; a name may stand before an address in angle brackets. */
export const mailAddresses = text.refine(
  (value) => !/\p{Cc}/u.test(value) && value.split(',').every((one) => /^([^<>@,]*<[^\s<>@,]+@[^\s<>@,]+>|[^\s<>@,]+@[^\s<>@,]+)$/.test(one.trim())),
  'a mail address, or several with commas between them',
)
