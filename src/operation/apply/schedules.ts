import { z } from 'zod'
import { jsonTexts } from '../../catalog/json.js'
import { activeKeys } from '../../catalog/keys.js'
import { notifyWork } from '../../catalog/notifications.js'
import { insertSchedule, isManaged, listSchedules, lockSchedule, setNextRun, updateSchedule, type Schedule } from '../../catalog/schedules.js'
import { listSources } from '../../catalog/sources.js'
import { compressionTypes, supportedBackupTypes } from '../../catalog/statuses.js'
import { listStorages } from '../../catalog/storages.js'
import { BackupdError } from '../../errors.js'
import { brokenRules, unknownName, type Existing, type Finding, type Kind, type Scope } from './kind.js'
import { catalogTime } from '../settings/configure.js'
import { nextRun } from '../settings/cron.js'
import { hookFields, hooksOf, hooksSchema, type Hooks } from '../settings/hooks.js'
import { removeUnusedSchedule, scheduleColumns, scheduleLimits, scheduleRules, sourceIdOf, type NewScheduleSettings } from '../settings/schedules.js'
import { DEFAULT_SOURCE, fromEnvironment } from '../sources.js'
import { needStorage } from '../settings/storages.js'

const defaults = {
  timezone: 'UTC', source: DEFAULT_SOURCE, type: 'full', compression: 'zstd', encrypt: true, verify: true, retention_days: 30, include: [], exclude: [], parallel_uploads: 3, active: true,
}

const whole = ([min, max]: readonly [number, number]) => {
  const expected = `a whole number from ${min} to ${max}`
  return z.int(expected).min(min, expected).max(max, expected)
}
const flag = z.boolean('true or false')
const patterns = z.array(z.string('text'), 'a list of patterns')

const schema = z.strictObject({
  name: z.string('text').describe('What to call it.'),
  cron: z.string('text').describe('When: five fields (minute hour day month weekday), six with seconds first, or @hourly, @daily, @weekly, @monthly, @yearly.'),
  timezone: z.string('text').default(defaults.timezone).describe('Whose clock that is, such as Europe/Berlin.'),
  source: z.string('text').default(defaults.source).describe('The name of a source.'),
  storage: z.string('text').describe('The name of a storage.'),
  copy_to: z.string('text').optional().describe('The name of another storage, which gets a copy of each backup.'),
  type: z.enum(supportedBackupTypes, `one of ${supportedBackupTypes.join(', ')}`).default('full').describe('full: database and globals; database_only: no globals; configuration: no rows.'),
  compression: z.enum(compressionTypes, `one of ${compressionTypes.join(', ')}`).default('zstd'),
  level: whole(scheduleLimits.level).optional().describe('Compression level; default that of the codec.'),
  encrypt: flag.default(defaults.encrypt).describe('Whether backups are encrypted to the keys.'),
  verify: flag.default(defaults.verify).describe('Whether a backup is read back after it was stored.'),
  retention_days: whole(scheduleLimits.retentionDays).default(defaults.retention_days),
  include: patterns.default([]).describe('Only these tables.'),
  exclude: patterns.default([]).describe('All but these tables.'),
  bandwidth_mbps: whole(scheduleLimits.bandwidth).optional().describe('Limit in megabits per second.'),
  parallel_uploads: whole(scheduleLimits.parallelUploads).default(defaults.parallel_uploads).describe('Pieces of an object in flight at a time.'),
  jobs: whole(scheduleLimits.jobs).optional().describe('Connections to dump with.'),
  hooks: hooksSchema.optional().describe('Commands around a backup.'),
  active: flag.default(defaults.active).describe('Whether it runs.'),
  description: z.string('text').optional().describe('For people.'),
})
type ScheduleDoc = z.output<typeof schema>

const settingsOf = (doc: ScheduleDoc): NewScheduleSettings => ({
  name: doc.name, cron: doc.cron, timezone: doc.timezone, storage: doc.storage, source: doc.source, type: doc.type, compression: doc.compression, level: doc.level,
  encrypt: doc.encrypt, verify: doc.verify, retentionDays: doc.retention_days, include: doc.include, exclude: doc.exclude, bandwidth: doc.bandwidth_mbps,
  parallelUploads: doc.parallel_uploads, copyTo: doc.copy_to, jobs: doc.jobs, description: doc.description,
})

/** Hooks as a file writes them; what the column holds and a file cannot say is text, which differs from every file. */
const hooksDoc = ({ hooks }: Schedule): { hooks?: Hooks } => {
  try {
    const { pre, post } = hooksOf({ hooks })
    const given = { ...(pre ? { pre } : {}), ...(post ? { post } : {}) }
    return Object.keys(given).length === 0 ? {} : { hooks: given }
  } catch {
    return { hooks: JSON.stringify(hooks) as unknown as Hooks }
  }
}

const docOf = (row: Schedule, storage: (id: number) => string, source: (id: number) => string): ScheduleDoc => {
  // What the column may hold of other programs' is not in the type, and differs from every file.
  const { backup_type: type, compression_type: compression } = row as unknown as { backup_type: ScheduleDoc['type']; compression_type: ScheduleDoc['compression'] }
  const { copy_to, compression_level: level, bandwidth_limit_mbps: bandwidth, jobs, description } = row
  return {
    name: row.name, cron: row.cron_expression, timezone: row.timezone, source: row.source_id === null ? DEFAULT_SOURCE : source(row.source_id), storage: storage(row.storage_backend_id),
    ...(copy_to === null ? {} : { copy_to: storage(copy_to) }), type, compression, ...(level === null ? {} : { level }), encrypt: row.encrypt_backup, verify: row.verify_integrity,
    retention_days: row.retention_days, include: jsonTexts(row.include_patterns), exclude: jsonTexts(row.exclude_patterns),
    // As a run takes them: a limit of 0 is none, and at least one piece is in flight.
    ...(bandwidth === null || bandwidth <= 0 ? {} : { bandwidth_mbps: bandwidth }), parallel_uploads: Math.max(1, row.max_parallel_uploads),
    ...(jobs === null ? {} : { jobs }), ...hooksDoc(row), active: row.is_active, ...(description === null ? {} : { description }),
  }
}

const namer = (rows: readonly { id: number; name: string }[]) => {
  const names = new Map(rows.map(({ id, name }) => [id, name]))
  return (id: number): string => names.get(id) ?? ''
}

const missing = ({ env, known }: Scope, { storage, copy_to, source }: ScheduleDoc): Finding[] => [
  ...(known('storage', storage) ? [] : [unknownName('storage', 'storage', storage)]),
  ...(copy_to === undefined || known('storage', copy_to) ? [] : [unknownName('copy_to', 'storage', copy_to)]),
  ...(known('source', source) || fromEnvironment(env, source) !== undefined ? [] : [unknownName('source', 'source', source)]),
]

const columns = async ({ env, tx }: Scope, doc: ScheduleDoc, existing?: Existing<ScheduleDoc, Schedule>) => ({
  ...scheduleColumns(settingsOf(doc)),
  storage_backend_id: (await needStorage(tx, doc.storage)).id,
  copy_to: doc.copy_to === undefined ? null : (await needStorage(tx, doc.copy_to)).id,
  source_id: existing?.doc.source === doc.source ? existing.row.source_id : await sourceIdOf(env, tx, doc.source === DEFAULT_SOURCE ? undefined : doc.source),
  is_active: doc.active,
  hooks: doc.hooks?.pre || doc.hooks?.post ? { pre: doc.hooks.pre ?? null, post: doc.hooks.post ?? null } : null,
})

/** When it runs next, by the catalog's clock; what was missed while it was off is not made up for. */
const upcoming = async ({ tx }: Scope, { active, cron, timezone }: ScheduleDoc): Promise<Date | null> =>
  active ? nextRun(cron, timezone, await catalogTime(tx)) : null

const warnOfDisabled = async ({ tx, warn }: Scope, { name, storage, copy_to, active }: ScheduleDoc): Promise<void> => {
  if (!active) return
  const off = (await listStorages(tx)).filter((row) => !row.is_active && (row.name === storage || row.name === copy_to))
  for (const row of off) warn(`schedule ${name}: its backups will fail as long as the storage ${row.name} is disabled`)
}

/** Fails with `key.none` when backups would be encrypted to nobody. */
const needKey = async ({ tx }: Scope, doc: ScheduleDoc): Promise<void> => {
  if (!doc.encrypt || (await activeKeys(tx)).length > 0) return
  throw new BackupdError('key.none', `the schedule ${doc.name} encrypts its backups, but there is no key`, {
    kind: 'configuration', hint: 'Name a public key under keys, or make one with "backupd key generate", or say encrypt: false.',
  })
}

const timing = ['cron', 'timezone', 'active']

/** What is backed up when, and where to. Schedules that the daemon keeps for itself are none of a file's business. */
export const scheduleKind: Kind<ScheduleDoc, Schedule> = {
  section: 'schedules',
  type: 'schedule',
  schema,
  defaults,
  fields: (_item, path) => (path[0] === 'hooks' ? hookFields(path.slice(1)) : Object.keys(schema.shape)),
  read: async (_env, tx): Promise<Existing<ScheduleDoc, Schedule>[]> => {
    const [storage, source] = [namer(await listStorages(tx)), namer(await listSources(tx))]
    return (await listSchedules(tx)).map((row) => ({ id: row.id, row, doc: docOf(row, storage, source), ...(isManaged(row) ? { kept: 'backupd keeps it by itself' } : {}) }))
  },
  prepare: async (_scope, item) => ({ ...item, cron: item.cron.trim() }),
  check: async (scope, doc, existing) => {
    if (existing !== undefined && isManaged(existing.row)) {
      return [{ field: 'name', error: new BackupdError('schedule.managed', 'the schedule of this name is kept by backupd itself', { kind: 'usage', hint: 'Give yours another name.' }) }]
    }
    return [...(await brokenRules(scheduleRules(settingsOf(doc)))), ...missing(scope, doc)]
  },
  create: async (scope, doc) => {
    await needKey(scope, doc)
    await warnOfDisabled(scope, doc)
    const row = await insertSchedule(scope.tx, { ...(await columns(scope, doc)), next_run_at: await upcoming(scope, doc) })
    await notifyWork(scope.tx, { kind: 'schedule', id: row.id })
    return { result: row, id: row.id, after: row }
  },
  change: async (scope, existing, doc, fields) => {
    if (fields.includes('encrypt')) await needKey(scope, doc)
    await warnOfDisabled(scope, doc)
    await lockSchedule(scope.tx, existing.id)
    const row = (await updateSchedule(scope.tx, existing.id, await columns(scope, doc, existing))) ?? existing.row
    const next = timing.some((field) => fields.includes(field)) ? await upcoming(scope, doc) : row.next_run_at
    if (next !== row.next_run_at) await setNextRun(scope.tx, row.id, next)
    await notifyWork(scope.tx, { kind: 'schedule', id: row.id })
    return { result: row, id: row.id, before: existing.row, after: { ...row, next_run_at: next } }
  },
  remove: async ({ tx }, { row }) => removeUnusedSchedule(tx, row),
}
