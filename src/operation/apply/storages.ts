import { z } from 'zod'
import { jsonObject } from '../../catalog/json.js'
import { insertStorage, listStorages, updateStorage, usesOfStorage, type StorageRow } from '../../catalog/storages.js'
import { loadSecretKey, sealConfig } from '../../encryption/secrets.js'
import { BackupdError } from '../../errors.js'
import { Secret } from '../../secret.js'
import { backendOf, configKeys, configProblems, storageBackends, typedValue } from '../../storage/registry.js'
import { checkConfigValues, configObject, isEmpty, takeConfig, type ConfigForm } from './config.js'
import { brokenRules, type Existing, type Finding, type Kind, type Scope } from './kind.js'
import { heldSecret, isUnread } from './values.js'
import { removeUnusedStorage, storageRules, storageView } from '../settings/storages.js'

interface StorageDoc {
  name: string
  type: string
  config: Record<string, unknown>
  active: boolean
  description?: string | undefined
}

const types = Object.keys(storageBackends)
const formOf = (type: string): ConfigForm => backendOf(type)
const isSecret = (type: string, key: string): boolean => formOf(type).secretFields.includes(key)

const defaults = { active: true }

const common = {
  active: z.boolean('true or false').default(defaults.active).describe('Whether new backups may go to it.'),
  description: z.string('text').optional().describe('For people.'),
}

const variant = (type: string) => z.strictObject({
  name: z.string('text').describe('What to call it.'), type: z.literal(type).describe('Kind of storage.'), config: configObject(formOf(type)).describe('See docs/storage.md.'), ...common,
})
const [first = 'local', ...others] = types
const schema = z.discriminatedUnion('type', [variant(first), ...others.map(variant)], `one of ${types.join(', ')}`)

/** Of what the row holds, the keys that are ours, each as its backend understands it; others belong to the sharing application. */
const docOf = (row: StorageRow): StorageDoc => {
  const config = jsonObject(row.config_data)
  const known = configKeys(row.backend_type).filter((key) => !isEmpty(config[key]))
  return {
    name: row.name, type: row.backend_type, active: row.is_active, ...(row.description === null ? {} : { description: row.description }),
    config: Object.fromEntries(known.map((key) => [key, isSecret(row.backend_type, key) ? heldSecret(config[key]) : typedValue(row.backend_type, key, config[key])])),
  }
}

const checkValues = (scope: Scope, { name, type, config }: StorageDoc): Promise<Finding[]> =>
  checkConfigValues(scope, formOf(type), config, { what: `storage ${name}`, code: 'storage.config_invalid', problems: (resolved) => configProblems(type, resolved) })

const stored = async ({ env }: Scope, { type, config }: StorageDoc, existing: Existing<StorageDoc, StorageRow> | undefined): Promise<Record<string, unknown>> => {
  const before = jsonObject(existing?.row.config_data)
  const foreign = Object.entries(before).filter(([key]) => !configKeys(type).includes(key))
  const wanted = Object.entries(config).map(([key, value]) => [key, isUnread(value) ? before[key] : value])
  const key = Object.values(config).some((value) => value instanceof Secret) ? await loadSecretKey(env.config) : new Secret('')
  return { ...Object.fromEntries(foreign), ...sealConfig(Object.fromEntries(wanted), formOf(type).secretFields, key) }
}

/** Places for backups. */
export const storageKind: Kind<StorageDoc, StorageRow> = {
  section: 'storages',
  type: 'storage',
  schema,
  defaults,
  fields: ({ type }, path) => {
    if (path[0] !== 'config') return ['name', 'type', 'config', 'active', 'description']
    return typeof type === 'string' && types.includes(type) ? configKeys(type) : []
  },
  // A type that this program does not know is none of its business.
  read: async (_env, tx) => (await listStorages(tx)).filter(({ backend_type }) => types.includes(backend_type)).map((row) => ({ id: row.id, row, doc: docOf(row) })),
  prepare: async ({ env }, item) => ({ ...item, config: await takeConfig(env, formOf(item.type), item.config, (key, value) => typedValue(item.type, key, value)) }),
  check: async (scope, doc, existing, fields) => {
    const found = [...(await brokenRules(storageRules(doc))), ...(await checkValues(scope, doc))]
    if (existing === undefined) return found
    if (fields.includes('type')) {
      found.push({ field: 'type', error: new BackupdError('storage.type_changed', `the storage is of type ${existing.doc.type} in the catalog, and what it holds is there`, { kind: 'usage', hint: 'Give the new storage another name.' }) })
    }
    const moved = fields.filter((field) => field.startsWith('config.') && !isSecret(doc.type, field.slice('config.'.length)))
    const { executions } = moved.length === 0 ? { executions: 0 } : await usesOfStorage(scope.tx, existing.id)
    if (executions > 0) scope.warn(`storage ${doc.name}: what its ${executions} ${executions === 1 ? 'execution' : 'executions'} stored is looked for where ${moved.join(', ')} now ${moved.length === 1 ? 'says' : 'say'}`)
    return found
  },
  create: async (scope, doc) => {
    const row = await insertStorage(scope.tx, { name: doc.name, backend_type: doc.type, config_data: await stored(scope, doc, undefined), is_active: doc.active, description: doc.description ?? null })
    return { result: row, id: row.id, after: storageView(row) }
  },
  change: async (scope, existing, doc, fields) => {
    const config = fields.some((field) => field.startsWith('config.')) ? { config_data: await stored(scope, doc, existing) } : {}
    const row = (await updateStorage(scope.tx, existing.id, { ...config, is_active: doc.active, description: doc.description ?? null })) ?? existing.row
    return { result: row, id: row.id, before: storageView(existing.row), after: storageView(row) }
  },
  remove: async ({ tx }, { row }) => removeUnusedStorage(tx, row),
}
