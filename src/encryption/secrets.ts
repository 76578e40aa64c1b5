import { createCipheriv, createDecipheriv, randomBytes, scryptSync } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupdError, messageOf } from '../errors.js'
import { makePrivateFile } from '../private-file.js'
import { Secret } from '../secret.js'

/** A secret as the catalog holds it. */
export interface Sealed {
  $sealed: string
}

/** Where the value of a configuration field may come from, besides standing there itself. */
export type Reference = { $env: string } | { $file: string } | Sealed

/** What sealed values and references are resolved with. */
export interface ResolveContext {
  /** The key of sealed values; asked for only when there is one. */
  key: Secret | (() => Promise<Secret>)
  env: Readonly<Record<string, string | undefined>>
}

const VERSION = 'v1:'
const KEY_ID = 4
const IV = 12
const TAG = 16
const CIPHER = 'aes-256-gcm'

const configurationError = (code: string, message: string, hint: string, cause?: unknown): BackupdError =>
  new BackupdError(code, message, { kind: 'configuration', hint, ...(cause === undefined ? {} : { cause }) })

const derivedKeys = new WeakMap<Secret, Buffer>()

// BACKUPD_SECRET_KEY may be a phrase that a person thought of, so guessing it is made slow (about 60 ms); once per key and process.
const derive = (key: Secret): { cipherKey: Buffer; id: Buffer } => {
  const bytes = derivedKeys.get(key) ?? scryptSync(key.reveal(), 'backupd sealed secret v1', 32 + KEY_ID, { N: 2 ** 15, r: 8, p: 1, maxmem: 2 ** 26 })
  derivedKeys.set(key, bytes)
  return { cipherKey: bytes.subarray(0, 32), id: bytes.subarray(32) }
}

/**
 * `secret` under `key`: `v1:` and base64 of key id (4 bytes), IV (12), ciphertext and tag (16) of AES-256-GCM.
 * Key and id come from the text of `key` by scrypt; the id tells a wrong key from a damaged value.
 */
export const sealSecret = (secret: Secret, key: Secret): Sealed => {
  const { cipherKey, id } = derive(key)
  const iv = randomBytes(IV)
  const cipher = createCipheriv(CIPHER, cipherKey, iv, { authTagLength: TAG })
  const sealed = Buffer.concat([id, iv, cipher.update(secret.reveal(), 'utf8'), cipher.final(), cipher.getAuthTag()])
  return { $sealed: VERSION + sealed.toString('base64') }
}

/** The secret in `sealed`. Fails with `secret.wrong_key` and `secret.damaged`. */
export const openSealed = (sealed: Sealed, key: Secret, field = 'a secret'): Secret => {
  const damaged = (cause?: unknown): BackupdError =>
    configurationError('secret.damaged', `the sealed value of ${field} is damaged`, 'Enter the value again.', cause)
  const bytes = Buffer.from(sealed.$sealed.slice(VERSION.length), 'base64')
  if (!sealed.$sealed.startsWith(VERSION) || bytes.length < KEY_ID + IV + TAG) throw damaged()
  const { cipherKey, id } = derive(key)
  if (!bytes.subarray(0, KEY_ID).equals(id)) {
    throw configurationError(
      'secret.wrong_key',
      `${field} was sealed with another secret key`,
      'Set BACKUPD_SECRET_KEY (or BACKUPD_SECRET_KEY_FILE) to the key it was entered under, or restore secret.key of the state directory, or enter the value again.',
    )
  }
  const decipher = createDecipheriv(CIPHER, cipherKey, bytes.subarray(KEY_ID, KEY_ID + IV), { authTagLength: TAG })
  decipher.setAuthTag(bytes.subarray(-TAG))
  try {
    return new Secret(decipher.update(bytes.subarray(KEY_ID + IV, -TAG)).toString('utf8') + decipher.final('utf8'))
  } catch (error) {
    throw damaged(error)
  }
}

const holds = <K extends string>(value: unknown, key: K): value is Record<K, string> =>
  typeof value === 'object' && value !== null && typeof (value as Record<string, unknown>)[key] === 'string' && Object.keys(value).length === 1

/** Whether `value` is `{"$sealed": …}`. */
export const isSealed = (value: unknown): value is Sealed => holds(value, '$sealed')
const isReference = (value: unknown): value is { $env: string } | { $file: string } => holds(value, '$env') || holds(value, '$file')

const fromEnvironment = (name: string, env: ResolveContext['env'], field: string): string => {
  const value = env[name]
  if (value !== undefined && value !== '') return value
  throw configurationError('config.env_missing', `${field} names the environment variable ${name}, which is not set`, `Set ${name} where backupd runs, or change ${field}.`)
}

const fromFile = async (file: string, field: string): Promise<string> => {
  try {
    return (await readFile(file, 'utf8')).replace(/\r?\n$/, '')
  } catch (error) {
    throw configurationError('config.file', `${field} names the file ${file}, which cannot be read: ${messageOf(error)}`, `Make the file readable where backupd runs, or change ${field}.`, error)
  }
}

/**
 * The text of a configuration value: the value itself, or what `{"$env": NAME}`, `{"$file": path}` or `{"$sealed": …}` refer to.
 * Fails with `config.env_missing`, `config.file`, `config.value`, `secret.*`, each naming `field`.
 */
export const resolveValue = async (value: unknown, { key, env, field }: ResolveContext & { field: string }): Promise<string> => {
  if (typeof value === 'string') return value
  if (typeof value === 'number' || typeof value === 'boolean') return String(value)
  if (holds(value, '$env')) return fromEnvironment(value.$env, env, field)
  if (holds(value, '$file')) return fromFile(value.$file, field)
  if (isSealed(value)) return openSealed(value, key instanceof Secret ? key : await key(), field).reveal()
  throw configurationError('config.value', `${field} is neither a value nor a reference`, 'Give text, a number, true or false, {"$env": "NAME"} or {"$file": "path"}.')
}

type Values = Readonly<Record<string, unknown>>
const mapped = (config: Values, change: (field: string, value: unknown) => unknown): Record<string, unknown> =>
  Object.fromEntries(Object.entries(config).map(([field, value]) => [field, change(field, value)]))

/** `config` for the catalog: the secret fields sealed, references left as they are. */
export const sealConfig = (config: Values, secretFields: readonly string[], key: Secret): Record<string, unknown> =>
  mapped(config, (field, value) => {
    if (!secretFields.includes(field) || value === undefined || value === null || isReference(value) || isSealed(value)) return value
    if (value instanceof Secret) return sealSecret(value, key)
    return sealSecret(new Secret(typeof value === 'string' ? value : JSON.stringify(value)), key)
  })

/**
 * `config` for use: references resolved, the secret fields as `Secret`s. Other values keep their type.
 * A secret field that stands in clear text, as another application may have written it, is taken as it is.
 */
export const resolveConfig = async (config: Values, secretFields: readonly string[], context: ResolveContext): Promise<Record<string, unknown>> => {
  const resolved: Record<string, unknown> = {}
  for (const [field, value] of Object.entries(config)) {
    if (value === undefined || value === null || value instanceof Secret) resolved[field] = value
    else if (secretFields.includes(field)) resolved[field] = new Secret(await resolveValue(value, { ...context, field }))
    else resolved[field] = isReference(value) || isSealed(value) ? await resolveValue(value, { ...context, field }) : value
  }
  return resolved
}

/** `config` for display: secret fields as `[secret]`, or as the reference they are. */
export const maskConfig = (config: Values, secretFields: readonly string[]): Record<string, unknown> =>
  mapped(config, (field, value) => {
    if (isReference(value) || value === undefined || value === null) return value
    return secretFields.includes(field) || isSealed(value) || value instanceof Secret ? '[secret]' : value
  })

const readKeyFile = async (file: string): Promise<Secret | undefined> => {
  try {
    const text = (await readFile(file, 'utf8')).trim()
    if (text.length >= 16) return new Secret(text)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw configurationError('secret.key_file', `the secret key ${file} cannot be read: ${messageOf(error)}`, 'Make it readable for the user that backupd runs as.', error)
  }
  throw configurationError('secret.key_file', `the secret key ${file} is cut off`, 'Restore the file from a copy; without it, the secrets in the catalog have to be entered again.')
}

/** The key in the state directory, when one was made yet. Fails with `secret.key_file`. */
export const existingSecretKey = ({ stateDir }: { stateDir: string }): Promise<Secret | undefined> => readKeyFile(join(stateDir, 'secret.key'))

/**
 * The key that secrets are sealed with: the given one, or the file `secret.key` in the state directory, which is made with 32 random
 * bytes when it is first needed. Of several that make it at once, one wins and all use its file. Fails with `secret.key_file`.
 */
export const loadSecretKey = async ({ secretKey, stateDir }: { secretKey: Secret | undefined; stateDir: string }): Promise<Secret> => {
  if (secretKey !== undefined) return secretKey
  const file = join(stateDir, 'secret.key')
  const existing = await readKeyFile(file)
  if (existing !== undefined) return existing
  try {
    await makePrivateFile(file, () => `${randomBytes(32).toString('base64')}\n`)
  } catch (error) {
    throw configurationError('secret.key_file', `the secret key ${file} cannot be made: ${messageOf(error)}`, 'Make the state directory writable, name another one in BACKUPD_STATE_DIR, or set BACKUPD_SECRET_KEY.', error)
  }
  const made = await readKeyFile(file)
  if (made === undefined) throw configurationError('secret.key_file', `the secret key ${file} vanished`, 'Start again.')
  return made
}
