import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { z } from 'zod'
import { BackupdError, messageOf } from './errors.js'
import { logLevels, type LogLevel } from './log.js'
import { Secret } from './secret.js'

/** Everything the environment decides, read once and frozen. */
export interface Config {
  /** The catalog; undefined means the embedded server. */
  databaseUrl: Secret | undefined
  stateDir: string
  /** The source named `default`. */
  sourceUrl: Secret | undefined
  /** Seals secrets in the catalog; undefined means the file in the state directory. */
  secretKey: Secret | undefined
  identityFile: string | undefined
  listen: { host: string; port: number }
  pgBin: string | undefined
  /** Milliseconds without a byte before a run is ended. */
  stallTimeout: number
  /** Undefined: info for the daemon, warn for other commands. */
  logLevel: LogLevel | undefined
  /** Milliseconds that running work has to finish after SIGTERM. */
  drainTimeout: number
  /** How far back a missed run is made up for, milliseconds. */
  catchUp: number
  /** Backups at a time per daemon. */
  concurrency: number
  /** Further attempts after a failed backup. */
  retries: number
  /** How long a chunk is sent again before the write fails, milliseconds. */
  storageRetry: number
  /** Runs due at one time are spread over this many milliseconds. */
  jitter: number
  /** Each backup is read back at least once in so many days; 0: never by itself. */
  scrubDays: number
  /** Uses of one search key in an hour that are told of when exceeded; 0: never. */
  searchKeyHourlyLimit: number
  /** The storage that rows of audit_logs are archived to by the daemon; undefined: they are not. */
  auditArchiveStorage: string | undefined
  /** Whether rows are deleted once they are archived. */
  auditArchiveDelete: boolean
  /** Signs rows of audit_logs, PEM; undefined means the file in the state directory. */
  auditKey: Secret | undefined
  /** Whether the daemon backs up its own catalog to each storage. */
  catalogBackup: boolean
}

const wholeNumber = (min: number, max: number) =>
  z.string().regex(/^\d+$/, `a whole number from ${min} to ${max}`).transform(Number).pipe(
    z.number().min(min, `a whole number from ${min} to ${max}`).max(max, `a whole number from ${min} to ${max}`),
  )
const seconds = (min: number, max: number) => wholeNumber(min, max).transform((value) => value * 1000)
const postgresUrl = z
  .string()
  .refine((value) => /^postgres(ql)?:\/\/./.test(value) && URL.canParse(value), 'a URL such as postgres://user@host:5432/database')
const listenAddress = z
  .string()
  .regex(/^(\[[0-9a-fA-F:.]+\]|[^:\s]+):\d{1,5}$/, 'an address and port such as 127.0.0.1:8470')
  .transform((value) => ({ host: value.slice(0, value.lastIndexOf(':')).replace(/^\[|\]$/g, ''), port: Number(value.slice(value.lastIndexOf(':') + 1)) }))
  .refine(({ port }) => port <= 65_535, 'a port from 0 to 65535')
const secretText = z.string().min(1, 'a non-empty value')
const path = z.string().min(1, 'a path').transform((value) => resolve(value))

/** Every variable that is read, with what it must look like. `X_FILE` names a file that holds the value of `X`. */
export const variables = {
  BACKUPD_DATABASE_URL: postgresUrl,
  BACKUPD_STATE_DIR: path,
  BACKUPD_SOURCE_URL: postgresUrl,
  BACKUPD_SECRET_KEY: secretText.refine((value) => value.length >= 16, 'at least 16 characters'),
  BACKUPD_IDENTITY_FILE: path,
  BACKUPD_LISTEN: listenAddress,
  BACKUPD_PG_BIN: path,
  BACKUPD_STALL_TIMEOUT: seconds(1, 86_400),
  BACKUPD_LOG_LEVEL: z.enum(logLevels, `one of ${logLevels.join(', ')}`),
  BACKUPD_DRAIN_TIMEOUT: seconds(0, 86_400),
  BACKUPD_CATCH_UP: seconds(0, 31_536_000),
  BACKUPD_CONCURRENCY: wholeNumber(1, 64),
  BACKUPD_RETRIES: wholeNumber(0, 20),
  BACKUPD_STORAGE_RETRY: seconds(0, 86_400),
  BACKUPD_JITTER: seconds(0, 3_600),
  BACKUPD_SCRUB_DAYS: wholeNumber(0, 3_650),
  BACKUPD_SEARCH_KEY_HOURLY_LIMIT: wholeNumber(0, 1_000_000_000),
  BACKUPD_AUDIT_ARCHIVE_STORAGE: z.string().min(1, 'the name of a storage'),
  BACKUPD_AUDIT_ARCHIVE_DELETE: z.enum(['true', 'false'], 'true or false').transform((value) => value === 'true'),
  BACKUPD_AUDIT_KEY: secretText,
  BACKUPD_CATALOG_BACKUP: z.enum(['on', 'off'], 'on or off').transform((value) => value === 'on'),
} as const
type Variable = keyof typeof variables

type Environment = Readonly<Record<string, string | undefined>>

const invalid = (name: string, expected: string, cause?: unknown): BackupdError =>
  new BackupdError('config.invalid', `${name} is not valid: expected ${expected}`, { kind: 'configuration', cause, details: { variable: name } })

const readValueFile = (name: string, file: string): string => {
  try {
    return readFileSync(file, 'utf8').replace(/\r?\n$/, '')
  } catch (error) {
    throw new BackupdError('config.file', `${name}: cannot read ${file}: ${messageOf(error)}`, { kind: 'configuration', cause: error })
  }
}

// BACKUPD_IDENTITY_FILE ends in _FILE itself and names the file, so it is never read as the file of another variable.
const rawValue = (env: Environment, name: string): string | undefined => {
  const direct = env[name]
  const file = name === 'BACKUPD_IDENTITY' ? undefined : env[`${name}_FILE`]
  if (direct !== undefined && direct !== '' && file !== undefined && file !== '') {
    throw invalid(`${name} and ${name}_FILE`, 'only one of the two to be set')
  }
  if (direct !== undefined && direct !== '') return direct
  return file === undefined || file === '' ? undefined : readValueFile(`${name}_FILE`, file)
}

const value = <V extends Variable>(env: Environment, name: V): z.output<(typeof variables)[V]> | undefined => {
  const raw = rawValue(env, name)
  if (raw === undefined) return undefined
  const result = variables[name].safeParse(raw)
  if (!result.success) throw invalid(name, result.error.issues[0]?.message ?? 'another value')
  return result.data as z.output<(typeof variables)[V]>
}

/** What a hook is told; a hook may call backupd. */
const toldToHooks = [
  'HOOK', 'SCHEDULE', 'STORAGE', 'BACKUP_ID', 'EXECUTION_ID', 'BACKUP_TYPE', 'TRIGGER', 'ATTEMPT', 'STATUS', 'LOCATION', 'SIZE_BYTES', 'STORED_BYTES', 'ERROR_CODE', 'ERROR',
].map((name) => `BACKUPD_${name}`)

const refuseUnknown = (env: Environment): void => {
  for (const name of Object.keys(env)) {
    if (!name.startsWith('BACKUPD_') || name in variables || (name.endsWith('_FILE') && name.slice(0, -5) in variables)) continue
    if (env['BACKUPD_HOOK'] !== undefined && toldToHooks.includes(name)) continue
    throw new BackupdError('config.unknown', `${name} is not a variable of backupd`, {
      kind: 'configuration',
      hint: `The variables are ${Object.keys(variables).join(', ')}, each also with _FILE.`,
      details: { variable: name },
    })
  }
}

const secret = (text: string | undefined): Secret | undefined => (text === undefined ? undefined : new Secret(text))

// The whole URL is not a secret (it is shown without its password); only the password is remembered for redaction.
const secretUrl = (url: string | undefined): Secret | undefined => {
  if (url === undefined) return undefined
  const { password } = new URL(url)
  if (password !== '') new Secret(decodeURIComponent(password))
  return new Secret(url)
}

const databaseUrl = (env: Environment): string | undefined => {
  const own = value(env, 'BACKUPD_DATABASE_URL')
  if (own !== undefined) return own
  const shared = rawValue(env, 'DATABASE_URL')
  if (shared === undefined) return undefined
  // Another application's variable may carry its driver's name: postgresql+asyncpg://…
  const plain = shared.replace(/^(postgres(?:ql)?)\+[a-z0-9_]+:/, '$1:')
  if (!postgresUrl.safeParse(plain).success) throw invalid('DATABASE_URL', 'a URL such as postgres://user@host:5432/database')
  return plain
}

const defaultStateDir = (env: Environment): string => {
  // systemd may name several directories, colon between them; the first is ours.
  const systemd = env['STATE_DIRECTORY']?.split(':')[0]
  if (systemd !== undefined && systemd !== '') return resolve(systemd)
  if (process.getuid?.() === 0) return '/var/lib/backupd'
  return join(env['XDG_STATE_HOME'] ?? join(env['HOME'] ?? homedir(), '.local', 'state'), 'backupd')
}

/** Reads the configuration from `env`. Fails with `config.*` (exit code 4), naming the variable and what was expected. */
export const readConfig = (env: Environment): Config => {
  refuseUnknown(env)
  return Object.freeze({
    databaseUrl: secretUrl(databaseUrl(env)),
    stateDir: value(env, 'BACKUPD_STATE_DIR') ?? defaultStateDir(env),
    sourceUrl: secretUrl(value(env, 'BACKUPD_SOURCE_URL')),
    secretKey: secret(value(env, 'BACKUPD_SECRET_KEY')),
    identityFile: value(env, 'BACKUPD_IDENTITY_FILE'),
    listen: value(env, 'BACKUPD_LISTEN') ?? { host: '127.0.0.1', port: 8470 },
    pgBin: value(env, 'BACKUPD_PG_BIN'),
    stallTimeout: value(env, 'BACKUPD_STALL_TIMEOUT') ?? 600_000,
    logLevel: value(env, 'BACKUPD_LOG_LEVEL'),
    drainTimeout: value(env, 'BACKUPD_DRAIN_TIMEOUT') ?? 30_000,
    catchUp: value(env, 'BACKUPD_CATCH_UP') ?? 86_400_000,
    concurrency: value(env, 'BACKUPD_CONCURRENCY') ?? 2,
    retries: value(env, 'BACKUPD_RETRIES') ?? 2,
    storageRetry: value(env, 'BACKUPD_STORAGE_RETRY') ?? 900_000,
    jitter: value(env, 'BACKUPD_JITTER') ?? 0,
    scrubDays: value(env, 'BACKUPD_SCRUB_DAYS') ?? 30,
    searchKeyHourlyLimit: value(env, 'BACKUPD_SEARCH_KEY_HOURLY_LIMIT') ?? 100,
    auditArchiveStorage: value(env, 'BACKUPD_AUDIT_ARCHIVE_STORAGE'),
    auditArchiveDelete: value(env, 'BACKUPD_AUDIT_ARCHIVE_DELETE') ?? false,
    auditKey: secret(value(env, 'BACKUPD_AUDIT_KEY')),
    catalogBackup: value(env, 'BACKUPD_CATALOG_BACKUP') ?? true,
  })
}
