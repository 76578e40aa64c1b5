import { z } from 'zod'
import { jsonObject, jsonTexts } from '../../catalog/json.js'
import { listNotifiers, type Notifier } from '../../catalog/notifiers.js'
import { alertEvents, alertSeverities } from '../../catalog/statuses.js'
import { BackupdError } from '../../errors.js'
import { channelKeys, channelKindOf, channelKinds, channelProblems, typedChannelValue } from '../../notify/registry.js'
import { checkConfigValues, configObject, isEmpty, takeConfig, type ConfigForm } from './config.js'
import { brokenRules, unknownName, type Existing, type Kind, type Scope } from './kind.js'
import { heldSecret, isUnread } from './values.js'
import { changeNotifier, createNotifier, deleteNotifier, notifierRules, sealNotifierConfig, type NewNotifierSettings } from '../settings/notifiers.js'

interface NotifierDoc {
  name: string
  type: string
  config: Record<string, unknown>
  schedules: string[]
  events: string[]
  min_severity: string
  active: boolean
  description?: string | undefined
}

const types = Object.keys(channelKinds)
const formOf = (type: string): ConfigForm => channelKindOf(type)
const isSecret = (type: string, key: string): boolean => formOf(type).secretFields.includes(key)

const defaults = { schedules: [], events: [], min_severity: 'info', active: true }

const common = {
  schedules: z.array(z.string('text'), 'a list of names').default([]).describe('Only what is about these schedules.'),
  events: z.array(z.enum(alertEvents, `one of ${alertEvents.join(', ')}`), 'a list of events').default([]).describe('Only these events.'),
  min_severity: z.enum(alertSeverities, `one of ${alertSeverities.join(', ')}`).default('info').describe('Nothing below it.'),
  active: z.boolean('true or false').default(defaults.active).describe('Whether anything is sent.'),
  description: z.string('text').optional().describe('For people.'),
}
const variant = (type: string) => z.strictObject({
  name: z.string('text').describe('What to call it.'), type: z.literal(type).describe('Kind of channel.'), config: configObject(formOf(type)).describe('The keys of its kind.'), ...common,
})
const [first = 'webhook', ...others] = types
const schema = z.discriminatedUnion('type', [variant(first), ...others.map(variant)], `one of ${types.join(', ')}`)

const docOf = (row: Notifier): NotifierDoc => {
  const config = jsonObject(row.config)
  const known = channelKeys(row.type).filter((key) => !isEmpty(config[key]))
  return {
    name: row.name, type: row.type,
    config: Object.fromEntries(known.map((key) => [key, isSecret(row.type, key) ? heldSecret(config[key]) : typedChannelValue(row.type, key, config[key])])),
    // In no order that means anything.
    schedules: jsonTexts(row.schedules).sort(), events: jsonTexts(row.events).sort(), min_severity: row.min_severity, active: row.is_active,
    ...(row.description === null ? {} : { description: row.description }),
  }
}

/** The settings with the configuration as the catalog has it; secrets that the file leaves to nobody stay what they were. */
const settings = async ({ env }: Scope, doc: NotifierDoc, existing?: Existing<NotifierDoc, Notifier>): Promise<NewNotifierSettings> => {
  const before = jsonObject(existing?.row.config)
  const given = Object.fromEntries(Object.entries(doc.config).map(([key, value]) => [key, isUnread(value) ? before[key] : value]))
  // Warnings of references are told when the file is checked.
  const { config } = await sealNotifierConfig(env, doc.type, given)
  return { name: doc.name, type: doc.type, config, schedules: doc.schedules, events: doc.events, minSeverity: doc.min_severity, active: doc.active, description: doc.description ?? '' }
}

/** Where alerts go. */
export const notifierKind: Kind<NotifierDoc, Notifier> = {
  section: 'notifiers',
  type: 'notifier',
  schema,
  defaults,
  fields: ({ type }, path) => {
    if (path[0] !== 'config') return ['name', 'type', 'config', ...Object.keys(common)]
    return typeof type === 'string' && types.includes(type) ? channelKeys(type) : []
  },
  // A type that this program does not know is none of its business.
  read: async (_env, tx) => (await listNotifiers(tx)).filter(({ type }) => types.includes(type)).map((row) => ({ id: row.id, row, doc: docOf(row) })),
  prepare: async ({ env }, item) => ({
    ...item, schedules: [...new Set(item.schedules)].sort(), events: [...new Set(item.events)].sort(),
    config: await takeConfig(env, formOf(item.type), item.config, (key, value) => typedChannelValue(item.type, key, value)),
  }),
  check: async (scope, doc, existing, fields) => [
    ...(await brokenRules(notifierRules({ name: doc.name, description: doc.description, events: doc.events, minSeverity: doc.min_severity }))),
    ...(await checkConfigValues(scope, formOf(doc.type), doc.config, { what: `notifier ${doc.name}`, code: 'notify.config_invalid', problems: (resolved) => channelProblems(doc.type, resolved) })),
    ...doc.schedules.filter((name) => !scope.known('schedule', name)).map((name) => unknownName('schedules', 'schedule', name)),
    ...(existing === undefined || !fields.includes('type') ? [] : [{ field: 'type', error: new BackupdError('notifier.type_changed', `the notifier is of type ${existing.doc.type} in the catalog`, { kind: 'usage', hint: 'Give the new one another name.' }) }]),
  ],
  create: async (scope, doc) => createNotifier(scope.tx, await settings(scope, doc)),
  change: async (scope, existing, doc) => {
    const { name: _, type: __, ...wanted } = await settings(scope, doc, existing)
    return changeNotifier(scope.tx, existing.row, wanted)
  },
  remove: async ({ tx }, { row }) => deleteNotifier(tx, row),
}
