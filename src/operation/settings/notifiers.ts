import type { Db } from '../../catalog/connect.js'
import { jsonObject } from '../../catalog/json.js'
import {
  alertCounts, findNotifier, insertNotifier, listNotifiers, removeNotifier, updateNotifier, type NewNotifier, type Notifier,
} from '../../catalog/notifiers.js'
import { dropWaiting } from '../../catalog/outbox.js'
import { findSchedule } from '../../catalog/schedules.js'
import { alertEvents, alertSeverities } from '../../catalog/statuses.js'
import { loadSecretKey, maskConfig, resolveConfig, sealConfig } from '../../encryption/secrets.js'
import { BackupdError } from '../../errors.js'
import { notifyError } from '../../notify/failure.js'
import { channelKeys, channelKindOf, openChannel, typedChannelValue } from '../../notify/registry.js'
import { Secret } from '../../secret.js'
import { checkDescription, checkName, keepRules, recorded, type Changed, type Rule } from './configure.js'
import type { Environment } from '../environment.js'
import { leadsNowhere, parseGiven, type GivenReference } from './references.js'
import { resolving } from '../sources.js'
import { shellWord } from '../../shell.js'

/** A notifier without secrets, and with what waits for it. */
export type NotifierView = Notifier & { waiting: number; failed: number }

/** What a notifier is made of. */
export interface NewNotifierSettings {
  name: string
  type: string
  /** Values as its kind takes them, or references. */
  config: Readonly<Record<string, unknown>>
  /** Names; none: whatever schedule it is. */
  schedules?: readonly string[] | undefined
  /** None: all but start and success, or what a ping needs. */
  events?: readonly string[] | undefined
  /** Default `info`. */
  minSeverity?: string | undefined
  active?: boolean | undefined
  description?: string | undefined
}

const masked = (row: Notifier): Record<string, unknown> => {
  const config = jsonObject(row.config)
  try {
    return maskConfig(config, channelKindOf(row.type).secretFields)
  } catch {
    // Of a type that this program does not know, nothing is shown.
    return maskConfig(config, Object.keys(config))
  }
}

/** The row without secrets. */
export const notifierView = (row: Notifier): Notifier => ({ ...row, config: masked(row) })

/** All notifiers without secrets. */
export const viewNotifiers = async (db: Db): Promise<NotifierView[]> => {
  const counts = await alertCounts(db)
  return (await listNotifiers(db)).map((row) => ({ ...notifierView(row), ...(counts.get(row.id) ?? { waiting: 0, failed: 0 }) }))
}

/** The notifier of that name. Fails with `notifier.not_found` (exit code 3). */
export const needNotifier = async (db: Db, name: string): Promise<Notifier> => {
  const row = await findNotifier(db, name)
  if (row !== undefined) return row
  throw new BackupdError('notifier.not_found', `there is no notifier "${name}"`, {
    kind: 'notFound', hint: `Add it with "backupd notify add ${shellWord(name)} --type TYPE --set KEY=VALUE"; "backupd notify list" shows what there is.`,
  })
}

const among = (code: string, what: string, value: string, known: readonly string[]): void => {
  if (known.includes(value)) return
  throw new BackupdError(code, `"${value}" is no ${what}`, { kind: 'usage', hint: `Use ${known.join(', ')}.` })
}

/** What the settings of a notifier have to keep by themselves, besides its configuration and the schedules that it names. */
export const notifierRules = ({ name, description, events = [], minSeverity = 'info' }: Omit<NewNotifierSettings, 'type' | 'config'>): Rule[] => [
  { field: 'name', check: () => checkName('notifier', name) },
  { field: 'description', check: () => checkDescription('notifier', description, 1000) },
  { field: 'events', check: () => events.forEach((event) => among('notifier.event_invalid', 'event', event, alertEvents)) },
  { field: 'min_severity', check: () => among('notifier.severity_invalid', 'severity', minSeverity, alertSeverities) },
]

/** `key=value` each, as typed, as a configuration. Fails with `notify.config_invalid` and `config.reference`. */
export const parseNotifierSettings = (type: string, set: readonly string[]): Record<string, unknown> => {
  const config: Record<string, string | GivenReference> = {}
  for (const item of set) {
    const at = item.indexOf('=')
    const key = item.slice(0, Math.max(at, 0)).trim()
    // What stands behind a forgotten key may be a secret, so it is not repeated.
    if (key === '') throw notifyError('notify.config_invalid', '--set wants key=value', { hint: `The keys of ${type} are ${channelKeys(type).join(', ')}.` })
    if (key in config) throw notifyError('notify.config_invalid', `${key} is set twice`, { hint: 'Give each key once.' })
    config[key] = parseGiven(item.slice(at + 1), key)
  }
  return config
}

/**
 * A configuration in the form of the catalog, its secrets sealed. A reference that leads nowhere here is a warning, and leaves the values
 * unchecked. Fails with `notify.config_invalid`.
 */
export const sealNotifierConfig = async (
  env: Pick<Environment, 'config'>, type: string, given: Readonly<Record<string, unknown>>,
): Promise<{ config: Record<string, unknown>; warnings: string[] }> => {
  const { secretFields } = channelKindOf(type)
  // Before anything can fail with one of these values in its message.
  for (const field of secretFields) if (typeof given[field] === 'string') new Secret(given[field])
  const keys = channelKeys(type)
  const unknown = Object.keys(given).filter((key) => !keys.includes(key))
  if (unknown.length > 0) throw notifyError('notify.config_invalid', `${unknown.join(', ')}: not a key of a notifier of type ${type}`, { hint: `The keys are ${keys.join(', ')}.` })
  const warnings: string[] = []
  try {
    openChannel(type, await resolveConfig(given, secretFields, resolving(env)))
  } catch (error) {
    if (!leadsNowhere(error)) throw error
    warnings.push(`${(error as BackupdError).message}; it has to be where the daemon runs, and until then the values are unchecked`)
  }
  const typed = Object.fromEntries(Object.entries(given).map(([key, value]) => [key, typedChannelValue(type, key, value)]))
  const sealing = secretFields.some((field) => typeof typed[field] === 'string' || typed[field] instanceof Secret)
  return { config: sealing ? sealConfig(typed, secretFields, await loadSecretKey(env.config)) : typed, warnings }
}

const listOrNull = (texts: readonly string[] | undefined): string[] | null => (texts === undefined || texts.length === 0 ? null : [...new Set(texts)])

const checkSchedules = async (db: Db, names: readonly string[] = []): Promise<void> => {
  for (const name of names) {
    if ((await findSchedule(db, name)) !== undefined) continue
    throw new BackupdError('schedule.not_found', `there is no schedule "${name}"`, { kind: 'notFound', hint: 'See "backupd schedule list".' })
  }
}

const columnsOf = (settings: Omit<NewNotifierSettings, 'config' | 'type'>) => ({
  name: settings.name,
  schedules: listOrNull(settings.schedules),
  events: listOrNull(settings.events),
  min_severity: settings.minSeverity ?? 'info',
  is_active: settings.active ?? true,
  description: checkDescription('notifier', settings.description, 1000),
})

/** Adds a notifier in a transaction; `config` is what `sealNotifierConfig` gave. Fails with `notifier.exists` and `schedule.not_found`. */
export const createNotifier = async (tx: Db, settings: NewNotifierSettings): Promise<Changed<Notifier>> => {
  await checkSchedules(tx, settings.schedules)
  const row = await insertNotifier(tx, { ...columnsOf(settings), type: settings.type, config: settings.config })
  return { result: notifierView(row), id: row.id, after: notifierView(row) }
}

/** Changes a notifier in a transaction; what is undefined stays. `config`, where given, is what `sealNotifierConfig` gave, whole. */
export const changeNotifier = async (tx: Db, before: Notifier, settings: Partial<Omit<NewNotifierSettings, 'name' | 'type'>>): Promise<Changed<Notifier>> => {
  await keepRules(notifierRules({ name: before.name, ...settings }))
  await checkSchedules(tx, settings.schedules)
  const set: Partial<NewNotifier> = {
    ...(settings.config === undefined ? {} : { config: settings.config }),
    ...(settings.schedules === undefined ? {} : { schedules: listOrNull(settings.schedules) }),
    ...(settings.events === undefined ? {} : { events: listOrNull(settings.events) }),
    ...(settings.minSeverity === undefined ? {} : { min_severity: settings.minSeverity }),
    ...(settings.active === undefined ? {} : { is_active: settings.active }),
    ...(settings.description === undefined ? {} : { description: checkDescription('notifier', settings.description, 1000) }),
  }
  const row = (await updateNotifier(tx, before.id, set)) ?? before
  if (before.is_active && !row.is_active) await dropWaiting(tx, row.id, 'the notifier was switched off')
  return { result: notifierView(row), id: row.id, before: notifierView(before), after: notifierView(row) }
}

/** Removes a notifier in a transaction, and what waits for it. */
export const deleteNotifier = async (tx: Db, row: Notifier): Promise<Changed<Notifier>> => {
  await removeNotifier(tx, row.id)
  return { result: notifierView(row), id: row.id, before: notifierView(row) }
}

/**
 * Adds a notifier, its secrets sealed. Fails with `notifier.*` and `notify.config_invalid` (usage, configuration), `notifier.exists`,
 * `schedule.not_found` or `config.reference`.
 */
export const addNotifier = async (env: Environment, settings: NewNotifierSettings): Promise<{ notifier: Notifier; warnings: string[] }> => {
  await keepRules(notifierRules(settings))
  const { config, warnings } = await sealNotifierConfig(env, settings.type, settings.config)
  const notifier = await recorded(env, { event: 'notifier.created', action: 'create', type: 'notifier', name: settings.name }, (tx) =>
    createNotifier(tx, { ...settings, config }))
  return { notifier, warnings }
}

/** Changes a notifier: the keys in `set` go over those it has, and what is undefined stays. Fails like `addNotifier`, and with `notifier.not_found`. */
export const alterNotifier = async (
  env: Environment, name: string, { set, ...settings }: Partial<Omit<NewNotifierSettings, 'name' | 'type' | 'config'>> & { set: readonly string[] },
): Promise<{ notifier: Notifier; warnings: string[] }> => {
  const { type } = await needNotifier(env.catalog.db, name)
  const given = parseNotifierSettings(type, set)
  const warnings: string[] = []
  const notifier = await recorded(env, { event: 'notifier.updated', action: 'update', type: 'notifier', name }, async (tx) => {
    const before = await needNotifier(tx, name)
    if (set.length === 0) return changeNotifier(tx, before, settings)
    const sealed = await sealNotifierConfig(env, type, { ...jsonObject(before.config), ...given })
    warnings.push(...sealed.warnings)
    return changeNotifier(tx, before, { ...settings, config: sealed.config })
  })
  return { notifier, warnings }
}

/** Switches a notifier on or off; what waits for one that is switched off is dropped. Fails with `notifier.not_found`. */
export const switchNotifier = (env: Environment, name: string, active: boolean): Promise<Notifier> =>
  recorded(env, { event: active ? 'notifier.enabled' : 'notifier.disabled', action: 'update', type: 'notifier', name }, async (tx) =>
    changeNotifier(tx, await needNotifier(tx, name), { active }))

/** Removes a notifier. Fails with `notifier.not_found`. */
export const dropNotifier = (env: Environment, name: string): Promise<Notifier> =>
  recorded(env, { event: 'notifier.removed', action: 'delete', type: 'notifier', name, risk: 'medium' }, async (tx) =>
    deleteNotifier(tx, await needNotifier(tx, name)))

