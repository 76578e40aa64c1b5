import { z } from 'zod'
import { resolveConfig } from '../../encryption/secrets.js'
import { BackupdError } from '../../errors.js'
import type { Finding, Scope } from './kind.js'
import { isReference, isUnread, plainValue, secretValue, takeSecret } from './values.js'
import type { Environment } from '../environment.js'
import { leadsNowhere } from '../settings/references.js'
import { resolving } from '../sources.js'

/** What is known of the configuration of one type of object. */
export interface ConfigForm {
  configSchema: z.ZodObject
  secretFields: readonly string[]
}

/** A configuration as the file writes it: the keys of its type, each a value or where one is. */
export const configObject = ({ configSchema, secretFields }: ConfigForm): z.ZodObject => {
  const shape: Readonly<Record<string, z.ZodType>> = configSchema.shape
  return z.strictObject(Object.fromEntries(Object.entries(shape).map(([key, field]) => {
    const value = secretFields.includes(key) ? secretValue : plainValue
    return [key, field.safeParse(undefined).success ? value.optional() : value] as const
  })))
}

export const isEmpty = (value: unknown): boolean => value === undefined || value === null || value === ''

/** The configuration as the file means it: secrets taken, other values as `typed` makes them. */
export const takeConfig = async (
  env: Pick<Environment, 'config'>, { secretFields }: ConfigForm, config: Readonly<Record<string, unknown>>, typed: (key: string, value: unknown) => unknown,
): Promise<Record<string, unknown>> => {
  const taken: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(config)) {
    if (isEmpty(value)) continue
    taken[key] = secretFields.includes(key) ? await takeSecret(env, value, key) : isReference(value) ? value : typed(key, value)
  }
  return taken
}

interface Checking {
  /** For people: `storage offsite`. */
  what: string
  code: string
  /** All that is wrong with resolved values. */
  problems(resolved: Record<string, unknown>): { key: string | undefined; message: string }[]
}

/** What is wrong with the values. What stands where it cannot be read here is said, and left unchecked. */
export const checkConfigValues = async ({ env, warn }: Scope, { secretFields }: ConfigForm, config: Readonly<Record<string, unknown>>, { what, code, problems }: Checking): Promise<Finding[]> => {
  const resolved: Record<string, unknown> = {}
  const unknown = new Set<string>()
  const found: Finding[] = []
  for (const [key, value] of Object.entries(config)) {
    if (isUnread(value)) {
      unknown.add(key)
      continue
    }
    try {
      Object.assign(resolved, await resolveConfig({ [key]: value }, secretFields.includes(key) ? [key] : [], resolving(env)))
    } catch (error) {
      if (!(error instanceof BackupdError)) throw error
      unknown.add(key)
      if (leadsNowhere(error)) warn(`${what}: ${error.message}; it has to be where the daemon runs, and until then the value is unchecked`)
      else found.push({ field: `config.${key}`, error })
    }
  }
  for (const { key, message } of problems(resolved)) {
    // What is not known here may be just what is missed.
    if (key === undefined ? unknown.size > 0 : unknown.has(key)) continue
    found.push({ field: key === undefined ? 'config' : `config.${key}`, error: new BackupdError(code, message.replace(/^\w+ is not valid: /, ''), { kind: 'configuration' }) })
  }
  return found
}
