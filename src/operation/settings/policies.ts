import type { Db } from '../../catalog/connect.js'
import { findPolicy, insertPolicy, listPolicies, removePolicy, updatePolicy, type PolicyRow } from '../../catalog/policies.js'
import { supportedBackupTypes } from '../../catalog/statuses.js'
import { listStorages } from '../../catalog/storages.js'
import { BackupdError } from '../../errors.js'
import { checkName, keepRules, recorded, type Changed, type Rule } from './configure.js'
import type { Environment } from '../environment.js'
import { needStorage } from './storages.js'

/** How long one kind of slot is kept: so many days, weeks, months or years, or not at all. */
export type Reach = number | 'none'

/** What a policy says. What is left out has the default of the column: 30 days, 7 daily, 4 weekly, 12 monthly, 5 yearly, at least 3. */
export interface PolicyRules {
  /** Every backup is kept for so many days. */
  days?: number | undefined
  daily?: Reach | undefined
  weekly?: Reach | undefined
  monthly?: Reach | undefined
  yearly?: Reach | undefined
  /** Good backups of each schedule that are kept whatever their age. */
  min?: number | undefined
}

export interface NewPolicySettings extends PolicyRules {
  name: string
  storage: string
  /** Undefined: backups of all types. */
  type?: string | undefined
}

/** What of a policy may be changed; `type: null` makes it one for all types. */
export interface PolicyChanges extends PolicyRules {
  storage?: string | undefined
  type?: string | null | undefined
  active?: boolean | undefined
}

/** A policy with the name of its storage. */
export type PolicyView = PolicyRow & { storage: string | null }

const MOST_DAYS = 36_500

const invalid = (name: string, why: string, hint: string): BackupdError =>
  new BackupdError('policy.rules_invalid', `policy ${name}: ${why}`, { kind: 'usage', hint })

const checkCount = (name: string, what: string, value: number, most: number): void => {
  if (Number.isInteger(value) && value >= 1 && value <= most) return
  throw invalid(name, `${what} is ${value}, and must be a whole number from 1 to ${most}`, value === 0 && what.startsWith('keep_') ? 'To keep none of these say "none".' : 'Give another number.')
}

// Each rule with its reach in days, at least, and how many of its units are possible.
const slots = [
  { rule: 'daily', column: 'keep_daily_for_days', unit: 'days', days: 1, most: MOST_DAYS },
  { rule: 'weekly', column: 'keep_weekly_for_weeks', unit: 'weeks', days: 7, most: 5_200 },
  { rule: 'monthly', column: 'keep_monthly_for_months', unit: 'months', days: 30, most: 1_200 },
  { rule: 'yearly', column: 'keep_yearly_for_years', unit: 'years', days: 365, most: 100 },
] as const

type Columns = Partial<Pick<PolicyRow, 'retention_days' | 'min_backups_to_keep' | (typeof slots)[number]['column']>>

/** The given rules as columns. Fails with `policy.rules_invalid`. */
const columnsOf = (name: string, rules: PolicyRules): Columns => {
  const columns: Columns = {}
  if (rules.days !== undefined) {
    checkCount(name, 'retention_days', rules.days, MOST_DAYS)
    columns.retention_days = rules.days
  }
  if (rules.min !== undefined) {
    checkCount(name, 'min_backups_to_keep', rules.min, 100_000)
    columns.min_backups_to_keep = rules.min
  }
  for (const { rule, column, most } of slots) {
    const value = rules[rule]
    if (value === undefined) continue
    if (value !== 'none') checkCount(name, column, value, most)
    columns[column] = value === 'none' ? 0 : value
  }
  return columns
}

/** A coarser slot that ends before a finer one keeps nothing that the finer one does not: whoever gave both meant something else. */
const refuseContradictions = (name: string, columns: Columns): void => {
  const given = slots.filter(({ column }) => (columns[column] ?? 0) > 0)
  given.forEach((coarse, at) => {
    const reach = (columns[coarse.column] ?? 0) * coarse.days
    const finer = given.slice(0, at).find((fine) => (columns[fine.column] ?? 0) * fine.days > reach)
    if (finer === undefined) return
    throw invalid(name, `its rules contradict each other: ${finer.rule} backups are kept for ${columns[finer.column]} ${finer.unit}, and ${coarse.rule} ones for only ${columns[coarse.column]} ${coarse.unit}`,
      `Keep ${coarse.rule} ones for longer than ${finer.rule} ones, or say "none" for one of them.`)
  })
}

const checkType = (name: string, type: string | null | undefined): string | null => {
  if (type === undefined || type === null) return null
  if ((supportedBackupTypes as readonly string[]).includes(type)) return type
  throw new BackupdError('policy.type', `policy ${name}: there are no backups of type ${type}`, { kind: 'usage', hint: `It is one of ${supportedBackupTypes.join(', ')}; without one, the policy is about all of them.` })
}

/** What the settings of a policy have to keep by themselves, but for contradictions. */
export const policyRules = (settings: NewPolicySettings): Rule[] => [
  { field: 'name', check: () => checkName('policy', settings.name) },
  { field: 'type', check: () => checkType(settings.name, settings.type) },
  ...(['days', 'daily', 'weekly', 'monthly', 'yearly', 'min'] as const).map((field) => ({ field, check: () => columnsOf(settings.name, { [field]: settings[field] }) })),
]

/** Fails with `policy.rules_invalid` when a coarser rule that is given ends before a finer one. */
export const checkContradictions = (settings: NewPolicySettings): void => refuseContradictions(settings.name, columnsOf(settings.name, settings))

/** Settings that keep the rules as the catalog has them, but for the storage. */
export const policyColumns = (settings: NewPolicySettings) => ({ ...columnsOf(settings.name, settings), name: settings.name, backup_type: checkType(settings.name, settings.type) })

const withNames = async (db: Db, rows: readonly PolicyRow[]): Promise<PolicyView[]> => {
  const names = new Map((await listStorages(db)).map(({ id, name }) => [id, name]))
  return rows.map((row) => ({ ...row, storage: names.get(row.storage_backend_id) ?? null }))
}

const viewOf = async (db: Db, row: PolicyRow): Promise<PolicyView> => {
  const [view] = await withNames(db, [row])
  if (view === undefined) throw new Error('a policy without a view')
  return view
}

/** All policies, by name. */
export const viewPolicies = async (db: Db): Promise<PolicyView[]> => withNames(db, await listPolicies(db))

/** The policy of that name. Fails with `policy.not_found` (exit code 3). */
export const policyNamed = async (db: Db, name: string): Promise<PolicyView> => {
  const row = await findPolicy(db, name)
  if (row !== undefined) return viewOf(db, row)
  throw new BackupdError('policy.not_found', `there is no policy "${name}"`, { kind: 'notFound', hint: 'See "backupd policy list".' })
}

/** Adds a policy. Fails with `policy.rules_invalid`, `policy.type`, `policy.name_invalid`, `policy.exists` (all usage) or `storage.unknown`. */
export const addPolicy = async (env: Environment, settings: NewPolicySettings): Promise<PolicyView> => {
  await keepRules(policyRules(settings))
  checkContradictions(settings)
  const { name } = settings
  const policy = await recorded(env, { event: 'policy.created', action: 'create', type: 'policy', name }, async (tx) => {
    const storage = await needStorage(tx, settings.storage)
    const row = await insertPolicy(tx, { ...policyColumns(settings), storage_backend_id: storage.id })
    return { result: row, id: row.id, after: row }
  })
  return viewOf(env.catalog.db, policy)
}

/** Changes what is given of a policy, and leaves the rest. Fails like `addPolicy`, and with `policy.not_found`. */
export const changePolicy = async (env: Environment, name: string, changes: PolicyChanges): Promise<PolicyView> => {
  const columns = columnsOf(name, changes)
  const policy = await recorded(env, { event: 'policy.changed', action: 'update', type: 'policy', name, risk: 'medium' }, async (tx) => {
    const { storage: _storage, ...before } = await policyNamed(tx, name)
    refuseContradictions(name, columns)
    const after = await updatePolicy(tx, before.id, {
      ...columns,
      ...(changes.type === undefined ? {} : { backup_type: checkType(name, changes.type) }),
      ...(changes.storage === undefined ? {} : { storage_backend_id: (await needStorage(tx, changes.storage)).id }),
      ...(changes.active === undefined ? {} : { is_active: changes.active }),
    })
    if (after === undefined) throw new BackupdError('policy.not_found', `there is no policy "${name}"`, { kind: 'notFound' })
    return { result: after, id: after.id, before, after }
  })
  return viewOf(env.catalog.db, policy)
}

/** Removes a policy in a transaction. */
export const removePolicyRow = async (tx: Db, row: PolicyRow): Promise<Changed<PolicyRow>> => {
  const { cleanups } = await removePolicy(tx, row.id)
  return { result: row, id: row.id, before: row, data: { cleanups_kept: cleanups } }
}

/** Removes a policy; what it kept is kept by the other policies and the schedules from then on. Fails with `policy.not_found`. */
export const dropPolicy = (env: Environment, name: string): Promise<PolicyView> =>
  recorded(env, { event: 'policy.removed', action: 'delete', type: 'policy', name, risk: 'medium' }, async (tx) => {
    const policy = await policyNamed(tx, name)
    const { storage: _storage, ...row } = policy
    return { ...(await removePolicyRow(tx, row)), result: policy }
  })
