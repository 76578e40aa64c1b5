import { jsonObject } from '../../catalog/json.js'
import {
  findStorage, insertStorage, recordStorageHealth, removeStorage, setStorageActive, usesOfStorage, type StorageRow,
} from '../../catalog/storages.js'
import type { Db } from '../../catalog/connect.js'
import { isManaged, removeSchedule } from '../../catalog/schedules.js'
import { loadSecretKey, maskConfig, resolveConfig, sealConfig } from '../../encryption/secrets.js'
import { BackupdError, messageOf } from '../../errors.js'
import { redact, Secret } from '../../secret.js'
import { backendOf, checkConfig, configKeys } from '../../storage/registry.js'
import { storageError } from '../../storage/failure.js'
import { setUpOf, type SetUp } from '../../storage/rights.js'
import type { ProbeStep, Storage } from '../../storage/storage.js'
import { checkDescription, checkName, counted, keepRules, named, recorded, refuseInUse, type Changed, type Rule } from './configure.js'
import type { Environment } from '../environment.js'
import { leadsNowhere, parseGiven, type GivenReference } from './references.js'
import { openStorageToLook, resolving } from '../sources.js'
import { shellWord } from '../../shell.js'

/** The row without secrets. A type that this program does not know shows none of its configuration. */
export const storageView = (row: StorageRow): StorageRow => {
  const config = jsonObject(row.config_data)
  let secretFields: readonly string[]
  try {
    secretFields = backendOf(row.backend_type).secretFields
  } catch {
    secretFields = Object.keys(config)
  }
  return { ...row, config_data: maskConfig(config, secretFields) }
}

/** The storage of that name. Fails with `storage.unknown` (exit code 3). */
export const needStorage = async (db: Db, name: string): Promise<StorageRow> => {
  const row = await findStorage(db, name)
  if (row !== undefined) return row
  throw new BackupdError('storage.unknown', `there is no storage "${name}"`, {
    kind: 'notFound', hint: `Add it with "backupd storage add ${shellWord(name)} --type TYPE --set KEY=VALUE"; "backupd storage list" shows what there is.`,
  })
}

export interface NewStorageSettings {
  name: string
  type: string
  /** `key=value` each, as typed. */
  set: readonly string[]
  description?: string | undefined
}

/** What the settings of a storage have to keep by themselves, besides its configuration. */
export const storageRules = ({ name, description }: Pick<NewStorageSettings, 'name' | 'description'>): Rule[] => [
  { field: 'name', check: () => checkName('storage', name, 100) },
  { field: 'description', check: () => checkDescription('storage', description, 500) },
]

const parseSettings = (type: string, set: readonly string[]): Record<string, string | GivenReference> => {
  const config: Record<string, string | GivenReference> = {}
  for (const text of set) {
    const at = text.indexOf('=')
    const key = text.slice(0, Math.max(at, 0)).trim()
    // What stands behind a forgotten key may be a secret, so it is not repeated.
    if (key === '') throw storageError('storage.config_invalid', '--set wants key=value', { hint: `The keys of ${type} are ${configKeys(type).join(', ')}.` })
    if (key in config) throw storageError('storage.config_invalid', `${key} is set twice`, { hint: 'Give each key once.' })
    config[key] = parseGiven(text.slice(at + 1), key)
  }
  return config
}

// What was given, with numbers and flags as such: so the sharing application writes them.
const typed = (given: Record<string, string | GivenReference>, checked: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(given).map(([key, value]) => {
    const parsed = checked[key]
    if (typeof value !== 'string') return [key, value]
    return [key, typeof parsed === 'number' || typeof parsed === 'boolean' ? parsed : value]
  }))

const refuseUnknownKeys = (type: string, config: Record<string, unknown>): void => {
  const keys = configKeys(type)
  const unknown = Object.keys(config).filter((key) => !keys.includes(key))
  if (unknown.length === 0) return
  throw storageError('storage.config_invalid', `${unknown.join(', ')}: not a key of a storage of type ${type}`, { hint: `The keys are ${keys.join(', ')}.` })
}

/**
 * Adds a storage, its secrets sealed. References that lead nowhere here are a warning, and leave the values unchecked.
 * Fails with `storage.exists`, `storage.config_invalid`, `storage.name_invalid` or `config.reference`.
 */
export const addStorage = async (env: Environment, settings: NewStorageSettings): Promise<{ storage: StorageRow; warnings: string[] }> => {
  await keepRules(storageRules(settings))
  const { name } = settings
  const description = checkDescription('storage', settings.description, 500)
  const { secretFields } = backendOf(settings.type)
  const given = parseSettings(settings.type, settings.set)
  // Before anything can fail with one of these values in its message.
  for (const field of secretFields) if (typeof given[field] === 'string') new Secret(given[field])
  refuseUnknownKeys(settings.type, given)
  const warnings: string[] = []
  let config: Record<string, unknown> = given
  try {
    config = typed(given, checkConfig(settings.type, await resolveConfig(given, secretFields, resolving(env)), { strict: true }))
  } catch (error) {
    if (!leadsNowhere(error)) throw error
    warnings.push(`${(error as BackupdError).message}; it has to be where the daemon runs, and until then the values are unchecked`)
  }
  if (secretFields.some((field) => typeof given[field] === 'string')) config = sealConfig(config, secretFields, await loadSecretKey(env.config))
  const storage = await recorded(env, { event: 'storage.created', action: 'create', type: 'storage', name }, async (tx) => {
    const row = await insertStorage(tx, { name, backend_type: settings.type, config_data: config, description })
    return { result: row, id: row.id, after: storageView(row) }
  })
  return { storage: storageView(storage), warnings }
}

/** Removes a storage that nothing refers to but the schedule of the catalog's backups, which goes with it, in a transaction. Fails with `storage.in_use`. */
export const removeUnusedStorage = async (tx: Db, row: StorageRow): Promise<Changed<StorageRow>> => {
  const { schedules, policies, executions, cleanups } = await usesOfStorage(tx, row.id)
  const managed = schedules.filter(isManaged)
  const given = schedules.filter((schedule) => !isManaged(schedule))
  const uses = [...named(given.map(({ name }) => name), 'schedule'), ...named(policies, 'retention policy', 'retention policies'), ...counted(executions, 'execution')]
  refuseInUse('storage', row.name, uses, `Remove these first, or switch it off with "backupd storage disable ${shellWord(row.name)}".`)
  for (const { id } of managed) await removeSchedule(tx, id)
  await removeStorage(tx, row.id)
  return { result: storageView(row), id: row.id, before: storageView(row), data: { cleanups_removed: cleanups, schedules_removed: managed.map(({ name }) => name) } }
}

/** Removes a storage that nothing refers to. Fails with `storage.unknown` and `storage.in_use`. */
export const dropStorage = (env: Environment, name: string): Promise<StorageRow> =>
  recorded(env, { event: 'storage.removed', action: 'delete', type: 'storage', name, risk: 'medium' }, async (tx) =>
    removeUnusedStorage(tx, await needStorage(tx, name)))

/** Switches a storage on or off: no new backup goes to one that is off, and what is in it stays readable. */
export const switchStorage = (env: Environment, name: string, active: boolean): Promise<{ storage: StorageRow; schedules: string[] }> =>
  recorded(env, { event: active ? 'storage.enabled' : 'storage.disabled', action: 'update', type: 'storage', name }, async (tx) => {
    const before = await needStorage(tx, name)
    const row = (await setStorageActive(tx, before.id, active)) ?? before
    const { schedules } = await usesOfStorage(tx, row.id)
    return { result: { storage: storageView(row), schedules: schedules.map(({ name }) => name) }, id: row.id, before: { is_active: before.is_active }, after: { is_active: row.is_active } }
  })

/** One sentence for what a probe found, and whether backups can be stored and read back. */
export const judgeProbe = (steps: readonly ProbeStep[]): { healthy: boolean; message: string } => {
  const bad = steps.filter(({ outcome }) => outcome === 'failed' || outcome === 'denied')
  const blocking = bad.filter(({ name, outcome }) => outcome === 'failed' || name === 'connect' || name === 'write')
  return { healthy: blocking.length === 0, message: bad.length === 0 ? 'all steps of the probe were ok' : bad.map(({ name, message }) => `${name}: ${message}`).join(' ') }
}

/** What a test of a storage found, and what to make of it. */
export interface StorageTest {
  healthy: boolean
  message: string
  steps: ProbeStep[]
  setUp: SetUp
  /** One sentence on the set-up. */
  meaning: string
  /** The least rights that this kind of storage needs, as a part of a sentence. */
  leastRights: string
  /** What is unsafe about the configuration. */
  concerns: readonly string[]
}

/** Probes a storage and notes the result in its row, also when it could not even be opened. */
export const testStorage = async (env: Environment, row: StorageRow): Promise<StorageTest> => {
  const note = (healthy: boolean, message: string): Promise<void> => recordStorageHealth(env.catalog.db, row.id, healthy, redact(message))
  let storage: Storage
  try {
    storage = await openStorageToLook(env, row)
  } catch (error) {
    await note(false, messageOf(error))
    throw error
  }
  try {
    const steps = await storage.probe({ signal: env.signal })
    const judged = judgeProbe(steps)
    await note(judged.healthy, judged.message)
    return { ...judged, steps, ...setUpOf(steps), leastRights: backendOf(row.backend_type).leastRights, concerns: storage.concerns ?? [] }
  } finally {
    await storage.close()
  }
}
