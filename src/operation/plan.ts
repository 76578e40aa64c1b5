import { z } from 'zod'
import type { CompressionType } from '../compression/codec.js'
import { codecs } from '../compression/registry.js'
import { jsonList } from '../catalog/json.js'
import { activeKeys } from '../catalog/keys.js'
import { catalogTables } from '../catalog/own-tables.js'
import { isManaged, type Schedule } from '../catalog/schedules.js'
import { compressionTypes, supportedBackupTypes, type SupportedBackupType } from '../catalog/statuses.js'
import { parseRecipient } from '../encryption/keys.js'
import { BackupdError } from '../errors.js'
import type { Connection } from '../postgres/connection.js'
import { exactly } from '../postgres/patterns.js'
import type { Environment } from './environment.js'
import { sourceOfSchedule, storageRow } from './sources.js'
import { shellWord } from '../shell.js'

/** Everything that decides how a backup is taken, checked before anything starts. */
export interface BackupPlan {
  scheduleName: string
  sourceName: string
  connection: Connection
  pgBin: string | undefined
  backupType: SupportedBackupType
  compression: CompressionType
  compressionLevel: number | undefined
  recipients: readonly string[]
  include: readonly string[]
  exclude: readonly string[]
  /** Megabits per second over all parts together. */
  bandwidthMbps: number | undefined
  parallelUploads: number
  verify: boolean
  /** What of the schedule has no effect, for people. */
  notes: readonly string[]
}

/** Fails with `schedule.backup_type` for a type that the column may hold but that is not supported. */
export const checkBackupType = (type: string): SupportedBackupType => {
  const known = supportedBackupTypes.find((name) => name === type)
  if (known !== undefined) return known
  throw new BackupdError('schedule.backup_type', `backup type "${type}" is not supported`, { kind: 'usage', hint: `Supported are ${supportedBackupTypes.join(', ')}.` })
}

/** Fails with `schedule.compression` for a name that is none, and with `compression.unavailable` for one this machine cannot do. */
export const checkCompression = async (name: string): Promise<CompressionType> => {
  const known = compressionTypes.find((type) => type === name)
  if (known === undefined) {
    throw new BackupdError('schedule.compression', `compression "${name}" is not known`, { kind: 'usage', hint: `Use one of ${compressionTypes.join(', ')}.` })
  }
  const why = await codecs[known].unavailable()
  if (why !== undefined) throw new BackupdError('compression.unavailable', `compression ${known} cannot be used here: ${why}`, { kind: 'configuration' })
  return known
}

const patternList = z.array(z.string().min(1))

const patterns = (value: unknown, column: string): string[] => {
  if (value === null || value === undefined) return []
  const parsed = patternList.safeParse(typeof value === 'string' && value.trim().startsWith('[') ? jsonList(value) : value)
  if (parsed.success) return parsed.data
  throw new BackupdError('schedule.patterns', `${column} of the schedule is not a list of patterns`, { kind: 'configuration', hint: 'Write it as ["schema.table", "schema.*"].' })
}

/** The error for a backup that would be encrypted to nobody. */
export const noKey = (): BackupdError =>
  new BackupdError('key.none', 'the schedule encrypts its backups, but there is no key', {
    kind: 'configuration',
    hint: 'Make one with "backupd key generate", or add a public key with "backupd key add age1…", or use --no-encrypt.',
  })

/** The age recipients of new backups: every key that is not retired. Fails with `key.none`. */
export const activeRecipients = async (env: Environment): Promise<string[]> => {
  const keys = await activeKeys(env.catalog.db)
  if (keys.length === 0) throw noKey()
  return keys.map(({ recipient }) => parseRecipient(recipient))
}

/** Checks a schedule's row and collects what its backup needs. Fails before anything is started, naming what is wrong. */
export const planBackup = async (env: Environment, schedule: Schedule): Promise<BackupPlan> => {
  const backupType = checkBackupType(schedule.backup_type)
  const compression = await checkCompression(schedule.compression_type)
  const storage = await storageRow(env, schedule.storage_backend_id)
  if (!storage.is_active) {
    throw new BackupdError('storage.disabled', `storage "${storage.name}" is disabled`, { kind: 'configuration', hint: `Enable it with "backupd storage enable ${shellWord(storage.name)}".` })
  }
  const source = await sourceOfSchedule(env, schedule)
  return {
    scheduleName: schedule.name,
    sourceName: source.name,
    connection: source.connection,
    pgBin: env.config.pgBin,
    backupType,
    compression,
    compressionLevel: schedule.compression_level ?? undefined,
    recipients: schedule.encrypt_backup ? await activeRecipients(env) : [],
    include: isManaged(schedule) ? (await catalogTables(env.catalog.sql)).map(exactly) : patterns(schedule.include_patterns, 'include_patterns'),
    exclude: patterns(schedule.exclude_patterns, 'exclude_patterns'),
    // A limit of 0 can only be meant as none.
    bandwidthMbps: schedule.bandwidth_limit_mbps === null || schedule.bandwidth_limit_mbps <= 0 ? undefined : schedule.bandwidth_limit_mbps,
    parallelUploads: Math.max(1, schedule.max_parallel_uploads),
    verify: schedule.verify_integrity,
    notes: schedule.jobs !== null && schedule.jobs > 1 ? [`the schedule asks for ${schedule.jobs} jobs; this version dumps a database as one stream`] : [],
  }
}
