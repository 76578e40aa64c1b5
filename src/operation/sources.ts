import { jsonObject } from '../catalog/json.js'
import { isManaged, type Schedule } from '../catalog/schedules.js'
import { findSource as findSourceRow, sourceById, type Source as SourceRow } from '../catalog/sources.js'
import { storageById, type StorageRow } from '../catalog/storages.js'
import { loadSecretKey, resolveConfig, sealConfig, type ResolveContext } from '../encryption/secrets.js'
import { BackupdError } from '../errors.js'
import { describeConnection, parseConnection, type Connection } from '../postgres/connection.js'
import { Secret } from '../secret.js'
import { backendOf, openStorage } from '../storage/registry.js'
import type { Storage } from '../storage/storage.js'
import type { Environment } from './environment.js'
import { shellWord } from '../shell.js'

/** The source that a schedule without one uses. */
export const DEFAULT_SOURCE = 'default'

/** What the source of backups of the catalog itself is called. */
export const CATALOG_SOURCE = 'catalog'

/** Fields of a source's `connection` that are secrets. A URL given by reference brings its password along, and is never shown. */
export const SOURCE_SECRETS = ['password'] as const

export interface Source {
  /** Null for `default` when only BACKUPD_SOURCE_URL says what it is. */
  id: number | null
  name: string
  connection: Connection
}

type Reading = Pick<Environment, 'config'>

/** What references and sealed values of the catalog are resolved with. */
export const resolving = ({ config }: Reading): ResolveContext => ({ key: () => loadSecretKey(config), env: process.env })

/** The connection of a source's row, its references and secrets resolved. Fails with `source.url_invalid`, `config.*` or `secret.*`. */
export const connectionOf = async (env: Reading, row: Pick<SourceRow, 'name' | 'connection'>): Promise<Connection> => {
  const { url, password } = await resolveConfig(jsonObject(row.connection), SOURCE_SECRETS, resolving(env))
  if (typeof url !== 'string') throw new BackupdError('source.url_invalid', `source "${row.name}" has no URL`, { kind: 'configuration' })
  const connection = parseConnection(url)
  return password instanceof Secret ? { ...connection, password } : connection
}

/** A connection as the catalog keeps it: the password sealed. `connectionOf` opens it. */
export const sealConnection = async ({ config }: Reading, connection: Connection): Promise<Record<string, unknown>> =>
  connection.password === undefined
    ? { url: describeConnection(connection) }
    : sealConfig({ url: describeConnection(connection), password: connection.password }, SOURCE_SECRETS, await loadSecretKey(config))

/** Whether `default` is what BACKUPD_SOURCE_URL says, whatever its row says. */
export const fromEnvironment = ({ config }: Reading, name: string): Connection | undefined =>
  name === DEFAULT_SOURCE && config.sourceUrl !== undefined ? parseConnection(config.sourceUrl.reveal()) : undefined

const resolved = async (env: Environment, row: SourceRow): Promise<Source> =>
  ({ id: row.id, name: row.name, connection: fromEnvironment(env, row.name) ?? (await connectionOf(env, row)) })

/** The error for a source that is not there. */
export const noSource = (name: string): BackupdError =>
  new BackupdError('source.not_found', `there is no source "${name}"`, {
    kind: 'notFound',
    hint: name === DEFAULT_SOURCE
      ? 'Set BACKUPD_SOURCE_URL, or add one with "backupd source add default --url URL".'
      : `Add it with "backupd source add ${shellWord(name)} --url URL"; "backupd source list" shows what there is.`,
  })

/** The source of that name; `default` may come from BACKUPD_SOURCE_URL. Fails with `source.not_found`. */
export const findSource = async (env: Environment, name: string): Promise<Source> => {
  const row = await findSourceRow(env.catalog.db, name)
  if (row !== undefined) return resolved(env, row)
  const connection = fromEnvironment(env, name)
  if (connection !== undefined) return { id: null, name, connection }
  throw noSource(name)
}

/** The source that a schedule backs up. */
export const sourceOfSchedule = async (env: Environment, schedule: Schedule): Promise<Source> => {
  if (isManaged(schedule)) return { id: null, name: CATALOG_SOURCE, connection: parseConnection(env.catalog.url.reveal()) }
  if (schedule.source_id === null) return findSource(env, DEFAULT_SOURCE)
  const row = await sourceById(env.catalog.db, schedule.source_id)
  if (row === undefined) throw new BackupdError('source.not_found', `the source of schedule "${schedule.name}" is gone`, { kind: 'notFound' })
  return resolved(env, row)
}

/** `config_data` of a storage, its references and secrets resolved. Fails with `config.*` or `secret.*`. */
export const storageConfigOf = async (env: Pick<Environment, 'config' | 'log'>, row: Pick<StorageRow, 'backend_type' | 'config_data'>): Promise<Record<string, unknown>> =>
  resolveConfig(jsonObject(row.config_data), backendOf(row.backend_type).secretFields, resolving(env))

/** Opens the storage of a row, its references and secrets resolved. Fails with `storage.config_invalid`, `config.*` or `secret.*`. */
export const openStorageRow = async (
  env: Pick<Environment, 'config' | 'log'>, row: Pick<StorageRow, 'backend_type' | 'config_data'>, parallelUploads = 3,
): Promise<Storage> => {
  return openStorage(row.backend_type, await storageConfigOf(env, row), { log: env.log, parallelUploads, retryFor: env.config.storageRetry })
}

// Milliseconds of trying again, enough for one answer of a service that is busy.
const LOOK = 5_000

/** `openStorageRow` for a look that tells what it sees: a backup waits for better times, whoever asks what is wrong does not. */
export const openStorageToLook = (env: Pick<Environment, 'config' | 'log'>, row: Pick<StorageRow, 'backend_type' | 'config_data'>): Promise<Storage> =>
  openStorageRow({ log: env.log, config: { ...env.config, storageRetry: Math.min(env.config.storageRetry, LOOK) } }, row)

/** The row of a storage. Fails with `storage.unknown`. */
export const storageRow = async (env: Environment, id: number): Promise<StorageRow> => {
  const row = await storageById(env.catalog.db, id)
  if (row === undefined) throw new BackupdError('storage.unknown', `storage ${id} is not in the catalog`, { kind: 'notFound' })
  return row
}
