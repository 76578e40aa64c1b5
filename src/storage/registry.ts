import type { z } from 'zod'
import { throwIfAborted } from '../errors.js'
import { Secret } from '../secret.js'
import { azureBackend } from './azure.js'
import { storageError } from './failure.js'
import { ftpBackend } from './ftp.js'
import { gcsBackend } from './gcs.js'
import { localBackend } from './local.js'
import { checkKey, checkListPrefix } from './prefix.js'
import { probeStorage } from './probe.js'
import { s3Backend } from './s3.js'
import { sftpBackend } from './sftp.js'
import { backendTypes, type BackendType, type Storage, type StorageAdapter, type StorageBackend, type StorageContext } from './storage.js'

/** Every kind of storage: one line each. */
export const storageBackends = {
  local: localBackend,
  aws_s3: s3Backend,
  gcs: gcsBackend,
  ftp: ftpBackend,
  azure_blob: azureBackend,
  sftp: sftpBackend,
} satisfies Record<BackendType, StorageBackend>

// A probe asks whether it works now; retrying for a quarter of an hour would only hide the answer.
const probeRetry = 2_000

/** The backend of `type`. Fails with `storage.config_invalid` for a name that is none. */
export const backendOf = (type: string): StorageBackend => {
  const found = (storageBackends as Partial<Record<string, StorageBackend>>)[type]
  if (found !== undefined) return found
  throw storageError('storage.config_invalid', `there is no storage type ${JSON.stringify(type)}`, { hint: `The types are ${backendTypes.join(', ')}.` })
}

/** The keys that the configuration of `type` may have. */
export const configKeys = (type: string): string[] => Object.keys(backendOf(type).configSchema.shape)

/** The value of a key as the backend understands it: a number or a flag that is written as text is one. What is not valid stays as it is. */
export const typedValue = (type: string, key: string, value: unknown): unknown => {
  const field = (backendOf(type).configSchema.shape as Partial<Record<string, z.ZodType>>)[key]
  const result = typeof value === 'object' ? undefined : field?.safeParse(value)
  return result?.success === true ? result.data : value
}

/** What is wrong with a configuration: the key, or nothing where several keys do not go together, and a sentence without a value in it. */
export interface ConfigProblem {
  key: string | undefined
  message: string
}

const describeIssue = (issue: z.core.$ZodIssue, config: Record<string, unknown>): ConfigProblem => {
  const key = issue.path.join('.')
  if (key === '') return { key: undefined, message: issue.message }
  return { key, message: config[key] === undefined ? `${key} is missing: expected ${issue.message}` : `${key} is not valid: expected ${issue.message}` }
}

const present = (config: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(config)
      .map(([key, value]) => [key, value instanceof Secret ? value.reveal() : value] as const)
      .filter(([, value]) => value !== undefined && value !== null && value !== ''),
  )

/** All that is wrong with the values of a configuration; unknown keys are not looked at. References must have been resolved. */
export const configProblems = (type: string, config: Readonly<Record<string, unknown>>): ConfigProblem[] => {
  const given = present(config)
  const result = backendOf(type).configSchema.safeParse(given)
  return result.success ? [] : result.error.issues.map((issue) => describeIssue(issue, given))
}

/**
 * The configuration of a storage in the form its backend takes: checked, with its secrets wrapped. References must have been resolved.
 * Empty and null values count as not given. Unknown keys are let through (the sharing application may have some), unless `strict`.
 * Fails with `storage.config_invalid`, naming the key and what was expected, never a value.
 */
export const checkConfig = (type: string, config: Readonly<Record<string, unknown>>, { strict = false }: { strict?: boolean } = {}): Record<string, unknown> => {
  const backend = backendOf(type)
  const given = present(config)
  const keys = configKeys(type)
  const unknown = Object.keys(given).filter((key) => !keys.includes(key))
  if (strict && unknown.length > 0) {
    throw storageError('storage.config_invalid', `${unknown.join(', ')}: not a key of a storage of type ${type}`, { hint: `The keys are ${keys.join(', ')}.`, details: { keys: unknown } })
  }
  const result = backend.configSchema.safeParse(given)
  if (!result.success) {
    const problems = result.error.issues.map((issue) => describeIssue(issue, given).message)
    throw storageError('storage.config_invalid', `the configuration of the ${type} storage is not valid: ${problems.join('; ')}`, {
      hint: `The keys are ${keys.join(', ')}.`,
      details: { keys: result.error.issues.map((issue) => issue.path.join('.')) },
    })
  }
  const parsed: Record<string, unknown> = { ...given, ...result.data }
  for (const field of backend.secretFields) {
    const value = parsed[field]
    if (typeof value === 'string') parsed[field] = new Secret(value)
  }
  return parsed
}

// What all backends share: keys are checked before anything is asked of the service, and the probe.
const complete = (adapter: StorageAdapter, probe: Storage['probe']): Storage => ({
  type: adapter.type,
  capabilities: adapter.capabilities,
  concerns: adapter.concerns ?? [],
  location: (key) => adapter.location(key),
  write: async (key, source, options) => {
    checkKey(key)
    throwIfAborted(options.signal)
    return adapter.write(key, source, options)
  },
  read: async function* (key, options) {
    checkKey(key)
    throwIfAborted(options.signal)
    yield* adapter.read(key, options)
  },
  stat: async (key, options) => {
    checkKey(key)
    throwIfAborted(options.signal)
    return adapter.stat(key, options)
  },
  list: async function* (prefix, options) {
    checkListPrefix(prefix)
    throwIfAborted(options.signal)
    yield* adapter.list(prefix, options)
  },
  remove: async (key, options) => {
    checkKey(key)
    throwIfAborted(options.signal)
    return adapter.remove(key, options)
  },
  probe,
  sweep: async (options) => {
    throwIfAborted(options.signal)
    return adapter.sweep(options)
  },
  ...(adapter.freeSpace === undefined ? {} : { freeSpace: adapter.freeSpace.bind(adapter) }),
  close: async () => adapter.close(),
})

/**
 * Opens a storage of `type` with the configuration of its row, references resolved. Does not have to connect yet.
 * Fails with `storage.config_invalid` (exit code 4) or `storage.missing_package`.
 */
export const openStorage = async (type: string, config: Readonly<Record<string, unknown>>, context: StorageContext): Promise<Storage> => {
  const backend = backendOf(type)
  const checked = checkConfig(type, config)
  return complete(await backend.open(checked, context), async (options) => {
    const adapter = await backend.open(checked, { ...context, retryFor: Math.min(context.retryFor, probeRetry) })
    try {
      return await probeStorage(adapter, options)
    } finally {
      await adapter.close()
    }
  })
}
