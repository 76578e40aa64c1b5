import { Secret } from '../../secret.js'
import { isSealed } from '../../encryption/secrets.js'
import type { Environment } from '../environment.js'
import type { Named } from './kind.js'
import { isReference, isUnread, sameValue, shownValue } from './values.js'

/** A field that is given, or another than before; secrets are `[secret]`. */
export interface FieldChange {
  field: string
  before?: unknown
  after?: unknown
}

/** What is to be done with one object. */
export interface Change {
  action: 'add' | 'change' | 'remove'
  type: string
  name: string
  /** In the order of the form; none for what is removed. */
  fields: FieldChange[]
}

const isGroup = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Secret) && !isReference(value) && !isSealed(value) && !isUnread(value)

const isNothing = (value: unknown): boolean => value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0)

/** The fields of an object by their paths, such as `config.base_path`; those that hold nothing are left out. */
export const fieldsOf = (doc: object, prefix = ''): Map<string, unknown> => {
  const found = new Map<string, unknown>()
  for (const [name, value] of Object.entries(doc)) {
    if (isNothing(value)) continue
    if (isGroup(value)) for (const [inner, deep] of fieldsOf(value, `${prefix}${name}.`)) found.set(inner, deep)
    else found.set(prefix + name, value)
  }
  return found
}

/** The fields in which the catalog holds something else than the file says. */
export const differingFields = async (env: Pick<Environment, 'config'>, current: Named, wanted: Named): Promise<FieldChange[]> => {
  const [before, after] = [fieldsOf(current), fieldsOf(wanted)]
  const changes: FieldChange[] = []
  for (const field of new Set([...after.keys(), ...before.keys()])) {
    const [old, next] = [before.get(field), after.get(field)]
    if (await sameValue(env, old, next)) continue
    changes.push({ field, ...(old === undefined ? {} : { before: shownValue(old) }), ...(next === undefined ? {} : { after: shownValue(next) }) })
  }
  return changes
}

/** All fields of an object that is new. */
export const givenFields = (doc: Named): FieldChange[] =>
  [...fieldsOf(doc)].filter(([field]) => field !== 'name').map(([field, value]) => ({ field, after: shownValue(value) }))
