import { z } from 'zod'

// Fields of `config_data`. The command line and references give text where the sharing application writes numbers and booleans.

/** Text that is not empty. */
export const text = z.string('text').min(1, 'text that is not empty')

/** `true` or `false`, also as text. */
export const flag = z.union([z.boolean(), z.stringbool({ truthy: ['true', 'yes', '1', 'on'], falsy: ['false', 'no', '0', 'off'] })], 'true or false')

/** A whole number from `min` to `max`, also as text. */
export const wholeNumber = (min: number, max: number) => {
  const expected = `a whole number from ${min} to ${max}`
  return z
    .union([z.number(), z.string().regex(/^\d+$/).transform(Number)], expected)
    .refine((value) => Number.isInteger(value) && value >= min && value <= max, expected)
}

/** One of `values`. */
export const oneOf = <const T extends readonly string[]>(values: T) => z.enum(values, `one of ${values.join(', ')}`)

/** An http or https URL without a path. */
export const endpointUrl = text.refine((value) => /^https?:\/\/[^/]/.test(value) && URL.canParse(value), 'a URL such as https://storage.example.org:9000')
