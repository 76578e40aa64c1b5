import { z } from 'zod'
import { insertPolicy, listPolicies, updatePolicy, type PolicyRow } from '../../catalog/policies.js'
import { supportedBackupTypes } from '../../catalog/statuses.js'
import { listStorages } from '../../catalog/storages.js'
import { brokenRules, unknownName, type Kind, type Scope } from './kind.js'
import { checkContradictions, policyColumns, policyRules, removePolicyRow, type NewPolicySettings, type Reach } from '../settings/policies.js'
import { needStorage } from '../settings/storages.js'

const defaults = { days: 30, daily: 7, weekly: 4, monthly: 12, yearly: 5, min: 3, active: true }

const count = z.int('a whole number')
const reach = z.union([count, z.literal('none')], 'a whole number, or none').meta({ id: 'reach' })

const schema = z.strictObject({
  name: z.string('text').describe('What to call it.'),
  storage: z.string('text').describe('The name of the storage whose backups it is about.'),
  type: z.enum(supportedBackupTypes, `one of ${supportedBackupTypes.join(', ')}`).optional().describe('Only backups of this type.'),
  days: count.default(defaults.days).describe('Every backup is kept for so many days.'),
  daily: reach.default(defaults.daily).describe('The newest of each day is kept for so many days.'),
  weekly: reach.default(defaults.weekly).describe('The newest of each week is kept for so many weeks.'),
  monthly: reach.default(defaults.monthly).describe('The newest of each month is kept for so many months.'),
  yearly: reach.default(defaults.yearly).describe('The newest of each year is kept for so many years.'),
  min: count.default(defaults.min).describe('So many good backups of each schedule are kept whatever their age.'),
  active: z.boolean('true or false').default(defaults.active).describe('Whether it counts.'),
})
type PolicyDoc = z.output<typeof schema>

const settingsOf = ({ active: _, ...doc }: PolicyDoc): NewPolicySettings => doc

const reachOf = (column: number): Reach => (column === 0 ? 'none' : column)

const docOf = (row: PolicyRow, storage: string): PolicyDoc => ({
  name: row.name, storage,
  // What the column may hold of other programs' is not in the type, and differs from every file.
  ...(row.backup_type === null ? {} : { type: row.backup_type as PolicyDoc['type'] }),
  days: row.retention_days, daily: reachOf(row.keep_daily_for_days), weekly: reachOf(row.keep_weekly_for_weeks), monthly: reachOf(row.keep_monthly_for_months),
  yearly: reachOf(row.keep_yearly_for_years), min: row.min_backups_to_keep, active: row.is_active,
})

// Only what was chosen contradicts; a default gives way.
const chosen = (doc: PolicyDoc): NewPolicySettings => {
  const given = settingsOf(doc)
  return Object.fromEntries(Object.entries(given).filter(([field, value]) => (defaults as Readonly<Record<string, unknown>>)[field] !== value)) as unknown as NewPolicySettings
}

const columns = async ({ tx }: Scope, doc: PolicyDoc) => ({ ...policyColumns(settingsOf(doc)), storage_backend_id: (await needStorage(tx, doc.storage)).id, is_active: doc.active })

/** How long backups are kept. */
export const policyKind: Kind<PolicyDoc, PolicyRow> = {
  section: 'policies',
  type: 'policy',
  schema,
  defaults,
  fields: () => Object.keys(schema.shape),
  read: async (_env, tx) => {
    const names = new Map((await listStorages(tx)).map(({ id, name }) => [id, name]))
    return (await listPolicies(tx)).map((row) => ({ id: row.id, row, doc: docOf(row, names.get(row.storage_backend_id) ?? '') }))
  },
  prepare: async (_scope, item) => item,
  check: async ({ known }, doc) => {
    const found = await brokenRules(policyRules(settingsOf(doc)))
    return [
      ...found,
      ...(found.length > 0 ? [] : await brokenRules([{ field: 'name', check: () => checkContradictions(chosen(doc)) }])),
      ...(known('storage', doc.storage) ? [] : [unknownName('storage', 'storage', doc.storage)]),
    ]
  },
  create: async (scope, doc) => {
    const row = await insertPolicy(scope.tx, await columns(scope, doc))
    return { result: row, id: row.id, after: row }
  },
  change: async (scope, { id, row: before }, doc) => {
    const row = (await updatePolicy(scope.tx, id, await columns(scope, doc))) ?? before
    return { result: row, id, before, after: row }
  },
  remove: async ({ tx }, { row }) => removePolicyRow(tx, row),
}
