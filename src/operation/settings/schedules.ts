import type { Db } from '../../catalog/connect.js'
import { activeKeys } from '../../catalog/keys.js'
import { notifyWork } from '../../catalog/notifications.js'
import { findSchedule, insertSchedule, isManaged, listSchedules, removeSchedule, updateSchedule, usesOfSchedule, type Schedule } from '../../catalog/schedules.js'
import { findSource, listSources } from '../../catalog/sources.js'
import { listStorages, type StorageRow } from '../../catalog/storages.js'
import { compressionTypes } from '../../catalog/statuses.js'
import { checkedLevel } from '../../compression/levels.js'
import { codecs } from '../../compression/registry.js'
import { BackupdError } from '../../errors.js'
import { parsePattern } from '../../postgres/patterns.js'
import { catalogTime, checkDescription, checkName, keepRules, recorded, refuseInUse, type Changed, type Rule } from './configure.js'
import { checkTimezone, nextRun, nextRuns } from './cron.js'
import type { Environment } from '../environment.js'
import { checkBackupType, checkCompression, noKey } from '../plan.js'
import { CATALOG_SOURCE, DEFAULT_SOURCE, fromEnvironment, noSource } from '../sources.js'
import { needStorage } from './storages.js'
import { shellWord } from '../../shell.js'

/** What a schedule is made of, as typed; numbers are whole and in range. */
export interface NewScheduleSettings {
  name: string
  cron: string
  timezone: string
  storage: string
  /** Undefined: the source named `default`, whatever that is when a run begins. */
  source?: string | undefined
  type: string
  compression: string
  level?: number | undefined
  encrypt: boolean
  verify: boolean
  retentionDays: number
  include: readonly string[]
  exclude: readonly string[]
  bandwidth?: number | undefined
  parallelUploads: number
  copyTo?: string | undefined
  jobs?: number | undefined
  description?: string | undefined
  /** What its row holds in `hooks`, checked. */
  hooks?: unknown
}

/** A schedule with the names of what it refers to. */
export type ScheduleView = Schedule & { storage: string | null; source: string; copy_to_storage: string | null }

/** Whole numbers of a schedule: the least and the greatest. */
export const scheduleLimits = {
  level: [0, 22], retentionDays: [1, 36_500], bandwidth: [1, 1_000_000], parallelUploads: [1, 64], jobs: [1, 64],
} as const

const checkCopyTo = ({ storage, copyTo }: NewScheduleSettings): void => {
  if (copyTo !== storage) return
  throw new BackupdError('schedule.copy_to', `a copy in ${storage} itself would be none`, { kind: 'usage', hint: 'Name another storage in --copy-to.' })
}

const checkLevel = ({ compression, level }: NewScheduleSettings): void => {
  const known = compressionTypes.find((type) => type === compression)
  if (known !== undefined && level !== undefined) checkedLevel(codecs[known], level)
}

/** What the settings of a schedule have to keep, each by itself, whatever else there is in the catalog. */
export const scheduleRules = (settings: NewScheduleSettings): Rule[] => [
  { field: 'name', check: () => checkName('schedule', settings.name) },
  { field: 'description', check: () => checkDescription('schedule', settings.description, 1000) },
  { field: 'timezone', check: () => checkTimezone(settings.timezone) },
  { field: 'cron', check: () => nextRun(settings.cron, 'UTC', new Date()) },
  { field: 'type', check: () => checkBackupType(settings.type) },
  { field: 'compression', check: () => checkCompression(settings.compression) },
  { field: 'level', check: () => checkLevel(settings) },
  ...settings.include.map((text, at) => ({ field: `include.${at}`, check: () => parsePattern(text) })),
  ...settings.exclude.map((text, at) => ({ field: `exclude.${at}`, check: () => parsePattern(text) })),
  { field: 'copy_to', check: () => checkCopyTo(settings) },
]

const listOrNull = (texts: readonly string[]): string[] | null => (texts.length === 0 ? null : [...texts])

/** Settings that keep the rules as the catalog has them, but for what they refer to and when the schedule runs next. */
export const scheduleColumns = (settings: NewScheduleSettings) => ({
  name: settings.name,
  cron_expression: settings.cron.trim(),
  timezone: settings.timezone,
  backup_type: settings.type,
  compression_type: settings.compression,
  compression_level: settings.level ?? null,
  encrypt_backup: settings.encrypt,
  verify_integrity: settings.verify,
  retention_days: settings.retentionDays,
  include_patterns: listOrNull(settings.include),
  exclude_patterns: listOrNull(settings.exclude),
  bandwidth_limit_mbps: settings.bandwidth ?? null,
  max_parallel_uploads: settings.parallelUploads,
  jobs: settings.jobs ?? null,
  description: checkDescription('schedule', settings.description, 1000),
})

const active = (storage: StorageRow): StorageRow => {
  if (storage.is_active) return storage
  throw new BackupdError('storage.disabled', `storage "${storage.name}" is disabled`, { kind: 'configuration', hint: `Enable it with "backupd storage enable ${shellWord(storage.name)}".` })
}

/** Null when no source is named: the one named `default`, whatever that is when a run begins. Fails with `source.not_found`. */
export const sourceIdOf = async (env: Environment, db: Db, name: string | undefined): Promise<number | null> => {
  const wanted = name ?? DEFAULT_SOURCE
  const row = await findSource(db, wanted)
  if (row === undefined && fromEnvironment(env, wanted) === undefined) throw noSource(wanted)
  return name === undefined ? null : (row?.id ?? null)
}

/**
 * Adds a schedule after checking everything that can be known now. Fails with `schedule.*` (usage), `pattern.invalid`,
 * `compression.*`, `storage.unknown`, `storage.disabled`, `source.not_found`, or `key.none` where backups would be encrypted to nobody.
 */
export const addSchedule = async (env: Environment, settings: NewScheduleSettings): Promise<{ schedule: ScheduleView; nextRuns: Date[] }> => {
  const { db } = env.catalog
  await keepRules(scheduleRules(settings))
  const { name } = settings
  const upcoming = nextRuns(settings.cron, settings.timezone, await catalogTime(db), 3)
  const values = { ...scheduleColumns(settings), next_run_at: upcoming[0] ?? null, ...(settings.hooks === undefined ? {} : { hooks: settings.hooks }) }
  const schedule = await recorded(env, { event: 'schedule.created', action: 'create', type: 'schedule', name }, async (tx) => {
    const storage = active(await needStorage(tx, settings.storage))
    const copy = settings.copyTo === undefined ? undefined : active(await needStorage(tx, settings.copyTo))
    const source_id = await sourceIdOf(env, tx, settings.source)
    if (settings.encrypt && (await activeKeys(tx)).length === 0) throw noKey()
    const row = await insertSchedule(tx, { ...values, storage_backend_id: storage.id, source_id, copy_to: copy?.id ?? null })
    await notifyWork(tx, { kind: 'schedule', id: row.id })
    return { result: row, id: row.id, after: row }
  })
  return { schedule: await viewOf(db, schedule), nextRuns: upcoming }
}

const namesById = (rows: readonly { id: number; name: string }[]) => {
  const names = new Map(rows.map(({ id, name }) => [id, name]))
  return (id: number | null): string | null => (id === null ? null : (names.get(id) ?? null))
}

const withNames = async (db: Db, schedules: readonly Schedule[]): Promise<ScheduleView[]> => {
  const storage = namesById(await listStorages(db))
  const source = namesById(await listSources(db))
  return schedules.map((row) => ({
    ...row, storage: storage(row.storage_backend_id), source: isManaged(row) ? CATALOG_SOURCE : (source(row.source_id) ?? DEFAULT_SOURCE), copy_to_storage: storage(row.copy_to),
  }))
}

const viewOf = async (db: Db, schedule: Schedule): Promise<ScheduleView> => {
  const [view] = await withNames(db, [schedule])
  if (view === undefined) throw new Error('a schedule without a view')
  return view
}

/** All schedules, by name. */
export const viewSchedules = async (db: Db): Promise<ScheduleView[]> => withNames(db, await listSchedules(db))

/** The schedule of that name. Fails with `schedule.not_found` (exit code 3). */
export const scheduleNamed = async (db: Db, name: string): Promise<Schedule> => {
  const row = await findSchedule(db, name)
  if (row !== undefined) return row
  throw new BackupdError('schedule.not_found', `there is no schedule "${name}"`, { kind: 'notFound', hint: 'See "backupd schedule list".' })
}

/** Switches a schedule on or off. Switched on, it runs next at its next time from now: what was missed meanwhile is not made up for. */
export const switchSchedule = async (env: Environment, name: string, on: boolean): Promise<ScheduleView> => {
  const row = await recorded(env, { event: on ? 'schedule.enabled' : 'schedule.disabled', action: 'update', type: 'schedule', name }, async (tx) => {
    const before = await scheduleNamed(tx, name)
    const next_run_at = on ? nextRun(before.cron_expression, before.timezone, await catalogTime(tx)) : null
    const after = (await updateSchedule(tx, before.id, { is_active: on, next_run_at })) ?? before
    await notifyWork(tx, { kind: 'schedule', id: after.id })
    const facts = ({ is_active, next_run_at: next }: Schedule) => ({ is_active, next_run_at: next })
    return { result: after, id: after.id, before: facts(before), after: facts(after) }
  })
  return viewOf(env.catalog.db, row)
}

const refuseManaged = (row: Schedule): void => {
  if (!isManaged(row)) return
  throw new BackupdError('schedule.managed', `the schedule "${row.name}" backs up the catalog, and the daemon would make it again`, {
    kind: 'usage', hint: `Switch it off with "backupd schedule disable ${shellWord(row.name)}"; BACKUPD_CATALOG_BACKUP=off does so for all storages.`,
  })
}

/** Removes a schedule of which nothing is waiting or running, in a transaction; its backups stay. Fails with `schedule.in_use` and `schedule.managed`. */
export const removeUnusedSchedule = async (tx: Db, row: Schedule): Promise<Changed<{ schedule: Schedule; executions: number }>> => {
  refuseManaged(row)
  const { live, executions } = await usesOfSchedule(tx, row.id)
  refuseInUse('schedule', row.name, live === 0 ? [] : [`${live} of its executions ${live === 1 ? 'waits or runs' : 'wait or run'}`], 'Wait for it, or cancel it with "backupd cancel".')
  await removeSchedule(tx, row.id)
  await notifyWork(tx, { kind: 'schedule', id: row.id })
  return { result: { schedule: row, executions }, id: row.id, before: row, data: { executions_kept: executions } }
}

/** Removes a schedule of which nothing is waiting or running; its backups stay. Fails with `schedule.not_found` and `schedule.in_use`. */
export const dropSchedule = (env: Environment, name: string): Promise<{ schedule: Schedule; executions: number }> =>
  recorded(env, { event: 'schedule.removed', action: 'delete', type: 'schedule', name, risk: 'medium' }, async (tx) =>
    removeUnusedSchedule(tx, await scheduleNamed(tx, name)))
