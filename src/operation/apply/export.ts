import { Document, isMap, isPair, visit, type Node, type Pair } from 'yaml'
import { canonicalJson } from '../../audit/canonical.js'
import { isSealed } from '../../encryption/secrets.js'
import { BackupdError } from '../../errors.js'
import { Secret } from '../../secret.js'
import { kinds } from './kinds.js'
import type { Kind, Named } from './kind.js'
import { CONFIGURATION_VERSION } from './schema.js'
import type { Environment } from '../environment.js'

/** A configuration in the form of a file. */
export interface ExportedConfiguration {
  document: Record<string, unknown>
  /** Variables that have to be set where it is applied to a catalog which has not the secrets yet. */
  variables: string[]
  /** What could not be written down, and why. */
  warnings: string[]
}

/** The name of a variable for a secret: `STORAGE_OFFSITE_SECRET_ACCESS_KEY`. */
const variableFor = (type: string, name: string, field: string, taken: ReadonlySet<string>): string => {
  const plain = `${type}_${name}_${field}`.toUpperCase().replace(/[^A-Z0-9]+/g, '_').replace(/^_+|_+$/g, '')
  let variable = plain
  for (let again = 2; taken.has(variable); again += 1) variable = `${plain}_${again}`
  return variable
}

const isNothing = (value: unknown): boolean => value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0)

/** The object as a file writes it: secrets become orders to seal what a variable holds, and what has its default is left out. */
const written = ({ type, defaults }: Kind, doc: Named, taken: Set<string>): Record<string, unknown> => {
  const field = (name: string, value: unknown): unknown => {
    if (value instanceof Secret || isSealed(value)) {
      const variable = variableFor(type, doc.name, name, taken)
      taken.add(variable)
      return { $seal: { $env: variable } }
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
    return Object.fromEntries(Object.entries(value).map(([inner, deep]) => [inner, field(inner, deep)]))
  }
  const entries = Object.entries(doc).filter(([name, value]) => !isNothing(value) && !(name in defaults && canonicalJson(value) === canonicalJson(defaults[name])))
  return Object.fromEntries(entries.map(([name, value]) => [name, field(name, value)]))
}

/** The configuration as the catalog has it, without secrets, in an order that does not change by itself. Fails with `catalog.ambiguous`. */
export const exportConfiguration = async (env: Environment): Promise<ExportedConfiguration> => {
  const variables = new Set<string>()
  const warnings: string[] = []
  const document: Record<string, unknown> = { version: CONFIGURATION_VERSION }
  // One moment for all of it.
  await env.catalog.db.transaction(async (tx) => {
    for (const kind of kinds) {
      const list: Record<string, unknown>[] = []
      const names = new Set<string>()
      for (const { doc, kept } of await kind.read(env, tx)) {
        if (names.has(doc.name)) throw new BackupdError('catalog.ambiguous', `there is more than one ${kind.type} named ${doc.name} in the catalog`, { kind: 'usage', hint: 'Rename all but one of them in the catalog.' })
        names.add(doc.name)
        if (kept !== undefined) continue
        const item = written(kind, doc, variables)
        const parsed = kind.schema.safeParse(item)
        if (!parsed.success) {
          const what = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: expected ${message}`).join('; ')
          warnings.push(`${kind.type} ${doc.name} holds what a file cannot say, and apply refuses it as it stands: ${what}`)
        }
        list.push(item)
      }
      document[kind.section] = list
    }
  }, { isolationLevel: 'repeatable read' })
  return { document, variables: [...variables], warnings }
}

const header = ` What backupd is to do, as "backupd export" found it. "backupd apply FILE" brings a catalog to it.
 Secrets are not in it: {$seal: {$env: NAME}} means that the value is in the variable NAME when the file is applied, and is kept sealed
 from then on. Where NAME is not set, the value that the catalog has stays.`

const secretPairs = (document: Document): Pair[] => {
  const found: Pair[] = []
  visit(document, {
    Pair: (_, pair) => {
      if (isMap(pair.value) && pair.value.has('$seal')) found.push(pair)
    },
  })
  return found
}

/** The document as YAML, with comments for who reads it. */
export const configurationYaml = ({ document }: ExportedConfiguration): string => {
  const yaml = new Document(document)
  yaml.commentBefore = header
  for (const pair of secretPairs(yaml)) {
    if (isPair(pair) && isMap(pair.value)) pair.value.comment = ' sealed in the catalog'
  }
  visit(yaml, {
    Map: (key, map, path) => {
      // References and orders on one line, sections apart.
      if (key === 'value' && path.length > 1 && map.items.length === 1 && map.items.every((item) => String(item.key).startsWith('$'))) map.flow = true
    },
  })
  if (isMap(yaml.contents)) for (const { key } of yaml.contents.items.slice(1)) (key as Node & { spaceBefore?: boolean }).spaceBefore = true
  return yaml.toString({ lineWidth: 0 })
}
