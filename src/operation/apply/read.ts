import type { z } from 'zod'
import type { ConfigurationFile } from './file.js'
import type { Kind, Named as NamedObject } from './kind.js'
import { kinds } from './kinds.js'
import { pathText, type Path, type Problem } from './problem.js'
import { configurationSchema } from './schema.js'

/** An object of the file that has the right form, with its defaults. */
export interface Item {
  kind: Kind
  /** Its place in the list. */
  at: number
  doc: NamedObject
  /** Fields of it that are wrong were left out. */
  incomplete: boolean
}

export interface ReadItems {
  items: Item[]
  /** Names of all objects that have one, also of those that have not the right form otherwise. */
  names: Map<Kind, Set<string>>
  /** The kinds that the file has a list of: only of these `--prune` may remove any. */
  listed: Set<Kind>
  problems: Problem[]
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)

const valueAt = (value: unknown, path: Path): unknown =>
  path.reduce<unknown>((at, step) => (typeof at === 'object' && at !== null ? (at as Record<string | number, unknown>)[step] : undefined), value)

const kindOfValue = (value: unknown): string => {
  if (value === null) return 'nothing'
  if (Array.isArray(value)) return 'a list'
  return { string: 'text', number: 'a number', boolean: 'true or false', object: 'an object' }[typeof value as string] ?? 'something else'
}

/** Fields that may stand in the object at `path`. */
const fieldsAt = (file: ConfigurationFile, path: Path): readonly string[] => {
  if (path.length === 0) return Object.keys(configurationSchema.shape)
  const kind = kinds.find(({ section }) => section === path[0])
  const item = valueAt(file.value, path.slice(0, 2))
  return kind === undefined || !isObject(item) ? [] : kind.fields(item, path.slice(2))
}

const problemsOf = (file: ConfigurationFile, issue: z.core.$ZodIssue): Problem[] => {
  const path = issue.path.map((step) => (typeof step === 'symbol' ? String(step) : step))
  if (issue.code === 'unrecognized_keys') {
    const fields = fieldsAt(file, path)
    return issue.keys.map((key) => ({
      ...file.placeOfKey(path, key), path: pathText(path), code: 'apply.unknown_field', message: `unknown field "${key}"`,
      ...(fields.length === 0 ? {} : { hint: `The fields here are ${fields.join(', ')}` }),
    }))
  }
  const found = valueAt(file.value, path)
  const last = path.at(-1)
  if (found === undefined && typeof last === 'string') {
    const around = path.slice(0, -1)
    return [{ ...file.place(around), path: pathText(around), code: 'apply.missing_field', message: `"${last}" is missing; expected ${issue.message}` }]
  }
  const wrongType = issue.code === 'invalid_type' || (issue.code === 'invalid_union' && !('discriminator' in issue && issue.discriminator !== undefined && typeof found === 'string'))
  return [{
    ...file.place(path), path: pathText(path), code: wrongType ? 'apply.wrong_type' : 'apply.wrong_value',
    message: `expected ${issue.message}${wrongType ? `, found ${kindOfValue(found)}` : ''}`,
  }]
}

interface Named {
  at: number
  name: string
}

const namesIn = (list: readonly unknown[]): Named[] =>
  list.flatMap((item, at) => (isObject(item) && typeof item['name'] === 'string' ? [{ at, name: item['name'] }] : []))

const duplicateNames = (file: ConfigurationFile, { section, type }: Kind, named: readonly Named[]): Problem[] =>
  named.flatMap(({ at, name }, index) => {
    const first = named.slice(0, index).find((other) => other.name === name)
    if (first === undefined) return []
    const path = [section, at, 'name']
    const { line } = file.place([section, first.at, 'name'])
    return [{ ...file.place(path), path: pathText(path), code: 'apply.duplicate_name', message: `the name "${name}" is that of the ${type} in line ${line} already`, hint: 'Give each its own name' }]
  })

// A mistake in one field keeps no other from being looked at: what is wrong is taken out, and what is left is read again.
const mended = (item: unknown, issues: readonly z.core.$ZodIssue[]): unknown => {
  const copy = structuredClone(item)
  for (const issue of issues) {
    const paths = issue.code === 'unrecognized_keys' ? issue.keys.map((key) => [...issue.path, key]) : [issue.path]
    for (const path of paths) {
      const around = valueAt(copy, path.slice(0, -1) as (string | number)[])
      if (isObject(around)) Reflect.deleteProperty(around, path.at(-1) ?? '')
    }
  }
  return copy
}

const parsedItem = (kind: Kind, item: unknown): { doc: NamedObject; incomplete: boolean } | undefined => {
  const parsed = kind.schema.safeParse(item)
  if (parsed.success) return { doc: parsed.data as NamedObject, incomplete: false }
  const rest = kind.schema.safeParse(mended(item, parsed.error.issues))
  return rest.success ? { doc: rest.data as NamedObject, incomplete: true } : undefined
}

/** The objects of a file, and everything that is wrong with its form. */
export const readItems = (file: ConfigurationFile): ReadItems => {
  const whole = configurationSchema.safeParse(file.value)
  const problems = [...file.duplicates, ...(whole.success ? [] : whole.error.issues.flatMap((issue) => problemsOf(file, issue)))]
  const items: Item[] = []
  const names = new Map<Kind, Set<string>>()
  const listed = new Set<Kind>()
  for (const kind of kinds) {
    const list = isObject(file.value) ? file.value[kind.section] : undefined
    if (!Array.isArray(list)) continue
    listed.add(kind)
    const named = namesIn(list)
    names.set(kind, new Set(named.map(({ name }) => name)))
    problems.push(...duplicateNames(file, kind, named))
    list.forEach((item: unknown, at) => {
      const parsed = parsedItem(kind, item)
      if (parsed !== undefined) items.push({ kind, at, ...parsed })
    })
  }
  return { items, names, listed, problems }
}
