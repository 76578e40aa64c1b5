import type { Execution } from '../catalog/executions.js'
import { jsonObject } from '../catalog/json.js'
import { BackupdError } from '../errors.js'
import { describeConnection, parseConnection, withDatabase, type Connection } from '../postgres/connection.js'
import { databaseExists, preflight, type Missing } from '../postgres/database.js'
import { describeDatabase } from '../postgres/describe.js'
import { onServer } from '../postgres/database.js'
import { chooseTools, findTools, type Tools } from '../postgres/tools.js'
import type { Contents } from '../repository/contents.js'
import { partOfKind, type Manifest, type Part } from '../repository/manifest.js'
import type { Secret } from '../secret.js'
import type { Storage } from '../storage/storage.js'
import type { Environment } from './environment.js'
import { refuseExpiring } from './expiring.js'
import { folderOf } from './folder.js'
import { identitiesAtHand } from './identities.js'
import { needIdentities, readContents, readManifest } from './readback.js'
import { CATALOG_SOURCE, findSource } from './sources.js'

/** Where a restore goes: a database beside the source, or anywhere by URL. */
export type RestoreTarget = { into: string } | { to: Connection }

export interface RestoreOptions {
  target: RestoreTarget
  /** Allows a database that is there already to be replaced. */
  overwrite: boolean
  /** Patterns; empty means everything. */
  tables: readonly string[]
  schemaOnly: boolean
  jobs: number
  /** Everything belongs to the connecting role, and no rights are granted: for a server without the original's roles. */
  noOwner: boolean
  /** Creates the roles and tablespaces of the backup that the target lacks, first. */
  globals: boolean
}

/** A restore that was checked and may begin. */
export interface RestorePlan {
  execution: Execution
  options: RestoreOptions
  storage: Storage
  manifest: Manifest
  contents: Contents
  identities: readonly Secret[]
  tools: Tools
  database: Part
  globals: Part | undefined
  /** The database that will hold the result. */
  target: Connection
  /** It is there already. */
  exists: boolean
  /** What the target lacks; nothing fatal. */
  warnings: string[]
}

const majorOf = (version: string): number => Number.parseInt(version, 10)

const catalogConnection = ({ catalog }: Environment): Connection => {
  if (!catalog.embedded) return parseConnection(catalog.url.reveal())
  throw new BackupdError('restore.embedded', 'this is a backup of the embedded catalog, whose server is not for other databases', {
    kind: 'usage', hint: 'Name a server with --to URL, or bring the catalog itself back with "backupd catalog restore".',
  })
}

/** The connection of the source that an execution backed up. */
const sourceConnection = async (env: Environment, execution: Execution): Promise<Connection> => {
  const { source: name, schedule } = jsonObject(execution.backup_config)
  if (name === CATALOG_SOURCE && execution.source_id === null && typeof schedule === 'string' && schedule.startsWith('catalog-')) return catalogConnection(env)
  if (typeof name === 'string') return (await findSource(env, name)).connection
  throw new BackupdError('restore.no_source', 'it is not known which server this backup came from', { kind: 'usage', hint: 'Name the target with --to URL.' })
}

const targetOf = async (env: Environment, execution: Execution, target: RestoreTarget): Promise<Connection> => {
  if ('to' in target) return target.to
  if (target.into === '' || Buffer.byteLength(target.into) > 63) {
    throw new BackupdError('restore.target_name', `"${target.into}" is not a name of a database`, { kind: 'usage', hint: 'A name has 1 to 63 bytes.' })
  }
  return withDatabase(await sourceConnection(env, execution), target.into)
}

const refuseExisting = (target: Connection): BackupdError =>
  new BackupdError('restore.target_exists', `the database ${describeConnection(target)} is there already`, {
    hint: 'Restore into another name, or say --overwrite: it is backed up first, and replaced only when the restore has succeeded.',
  })

const needNothing = (missing: readonly Missing[], { noOwner, globals }: RestoreOptions): string[] => {
  const needed = missing.filter(({ kind, fatal }) => fatal && !(kind === 'role' && (noOwner || globals)) && !(kind === 'tablespace' && (noOwner || globals)))
  if (needed.length > 0) {
    throw new BackupdError('restore.target_lacks', `the target lacks what the backup needs: ${needed.map(({ kind, name }) => `${kind} ${name}`).join(', ')}`, {
      kind: 'configuration',
      hint: needed.map(({ message }) => message).join('; '),
      details: { missing: needed.map(({ kind, name, message }) => ({ kind, name, message })) },
    })
  }
  return missing.filter(({ fatal }) => !fatal).map(({ message }) => message)
}

const damaged = (manifest: Manifest): BackupdError =>
  new BackupdError('restore.parts', `backup ${manifest.backup_id} has no part with a database`, { kind: 'integrity' })

/**
 * Finds out whether a restore can be done before anything is touched: the manifest and the index are read and compared with their
 * digests, the key is at hand, the tools are there, the target is free (or may be replaced) and has the roles and extensions.
 */
export const planRestore = async (env: Environment, execution: Execution, storage: Storage, options: RestoreOptions): Promise<RestorePlan> => {
  const { signal } = env
  refuseExpiring(execution)
  const { manifest } = await readManifest(storage, folderOf(execution), execution.checksum, signal)
  const identities = await identitiesAtHand(env)
  await needIdentities(manifest, identities)
  const contents = await readContents(storage, { manifest, identities, signal })
  const database = partOfKind(manifest, 'database')
  if (database === undefined) throw damaged(manifest)
  const target = await targetOf(env, execution, options.target)
  const server = await onServer(target, signal, describeDatabase)
  const tools = chooseTools(await findTools({ pgBin: env.config.pgBin }), Math.max(server.serverMajor, majorOf(manifest.pg_dump_version)))
  const exists = await databaseExists(target, signal)
  if (exists && !options.overwrite) throw refuseExisting(target)
  const warnings = needNothing(await preflight(target, contents, signal), options)
  if (server.serverMajor < majorOf(manifest.server_version)) {
    warnings.push(`the target is PostgreSQL ${server.serverMajor}, older than the original's ${majorOf(manifest.server_version)}: what it does not know makes the restore fail`)
  }
  return { execution, options, storage, manifest, contents, identities, tools, database, globals: partOfKind(manifest, 'globals'), target, exists, warnings }
}

/** The steps of a restore in words, for `--dry-run`. */
export const describePlan = ({ execution, options, storage, database, target, exists, manifest, globals, contents }: RestorePlan): string[] => {
  const where = describeConnection(target)
  const what = options.tables.length > 0 ? `the tables ${options.tables.join(', ')}` : options.schemaOnly ? 'the schema, without rows' : 'everything'
  const inPlace = exists && options.tables.length > 0
  return [
    `read ${storage.location(database.key)}, made ${manifest.started_at} from ${manifest.database} (PostgreSQL ${manifest.server_version})`,
    ...(exists ? [`check every digest of backup ${execution.backup_id}`, `back up the present ${where}`] : []),
    ...(options.globals && globals !== undefined ? ['create the roles and tablespaces that the target lacks'] : []),
    ...(inPlace ? [] : [`create the database ${exists ? `beside ${where}, under a temporary name` : where} (encoding ${contents.database.encoding}, collation ${contents.database.collate})`]),
    `restore ${what} with pg_restore, ${options.jobs} ${options.jobs === 1 ? 'job' : 'jobs'}`,
    ...(options.schemaOnly ? [] : ['compare tables and row counts with the index of the backup']),
    ...(exists && !inPlace ? [`put it in the place of ${where}, and drop the old one`] : []),
  ]
}
