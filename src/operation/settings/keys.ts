import { open, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Db } from '../../catalog/connect.js'
import { activeKeys, findKey, insertKey, listKeys, removeKey, retireKey, usesOfKey, type Key } from '../../catalog/keys.js'
import { listSchedules } from '../../catalog/schedules.js'
import { generateIdentity, identityFileText, keyHash, parseRecipient, recipientOf } from '../../encryption/keys.js'
import { asBackupdError, BackupdError, messageOf } from '../../errors.js'
import { makeFolders } from '../../folders.js'
import type { Secret } from '../../secret.js'
import { checkName, counted, named, recorded, refuseInUse } from './configure.js'
import type { Environment } from '../environment.js'
import { identitiesAtHand, identityFolder } from '../identities.js'

/** A key and whether this machine holds its private half. */
export type KeyView = Key & { at_hand: boolean }

const exists = (name: string): BackupdError =>
  new BackupdError('key.exists', `there is a key named ${name} already`, { kind: 'usage', hint: 'Give another name with --name.' })

// The name becomes the name of a file.
/** The name when it is one for a key. Fails with `key.name_invalid`. */
export const checkKeyName = (name: string): string => {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) return checkName('key', name, 100)
  throw new BackupdError('key.name_invalid', `${JSON.stringify(name)} is no name for a key`, { kind: 'usage', hint: 'Use letters, digits, dots, dashes and underscores; the first a letter or a digit.' })
}

const writeIdentity = async (file: string, identity: Secret, recipient: string): Promise<void> => {
  try {
    const handle = await open(file, 'wx', 0o600)
    try {
      await handle.writeFile(identityFileText(identity, recipient, new Date()))
      await handle.sync()
    } finally {
      await handle.close()
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') {
      throw new BackupdError('key.file_exists', `${file} is there already, and may hold a key that backups need`, { hint: 'Name another file with --out, or another key with --name.' })
    }
    throw asBackupdError(error, 'key.file', `the private key could not be written to ${file}`, { kind: 'configuration', hint: 'Name a file that this user may write with --out.' })
  }
}

const ownFolder = async ({ config }: Environment): Promise<string> => {
  const folder = identityFolder(config)
  await makeFolders(folder).catch((error: unknown) => {
    throw asBackupdError(error, 'key.file', `the folder ${folder} cannot be made`, { kind: 'configuration', hint: 'Make the state directory writable, name another one in BACKUPD_STATE_DIR, or name a file with --out.' })
  })
  return folder
}

const register = (env: Environment, name: string, recipient: string, event: string): Promise<Key> =>
  recorded(env, { event, action: 'create', type: 'key', name, risk: 'medium' }, async (tx) => {
    const row = await insertKey(tx, { name, recipient, fingerprint: keyHash([recipient]) })
    return { result: row, id: row.id, after: row }
  })

/**
 * Makes a key: the private half into a new file of mode 0600 (default `<state>/identities/NAME.txt`), the public one into the catalog.
 * Fails with `key.exists`, `key.file_exists`, `key.file` or `key.name_invalid`.
 */
export const generateKey = async (env: Environment, wanted: { name: string; out?: string | undefined }): Promise<{ key: Key; file: string }> => {
  const name = checkKeyName(wanted.name)
  if (wanted.out?.trim() === '') throw new BackupdError('key.file', '--out names no file', { kind: 'usage', hint: 'Give the path of a new file, or leave --out away.' })
  if ((await findKey(env.catalog.db, name)) !== undefined) throw exists(name)
  const { identity, recipient } = await generateIdentity()
  const file = wanted.out === undefined ? join(await ownFolder(env), `${name}.txt`) : resolve(wanted.out)
  await writeIdentity(file, identity, recipient)
  try {
    return { key: await register(env, name, recipient, 'key.generated'), file }
  } catch (error) {
    // Otherwise nobody knows whether the catalog has it, and then the file must stay: backups may be encrypted to it.
    if (error instanceof BackupdError && error.code === 'key.exists') {
      await rm(file, { force: true }).catch((secondary: unknown) => env.log.warn({ file, error: messageOf(secondary) }, 'the unused private key is left'))
    }
    throw error
  }
}

/** Adds a public key whose private half somebody else keeps. Fails with `key.recipient_invalid`, `key.exists` or `key.name_invalid`. */
export const addKey = (env: Environment, text: string, wantedName: string | undefined): Promise<Key> => {
  const recipient = parseRecipient(text)
  const name = checkKeyName(wantedName ?? `key-${keyHash([recipient]).slice(0, 8)}`)
  return register(env, name, recipient, 'key.added')
}

/** All keys, retired ones too, by name. */
export const viewKeys = async (env: Environment): Promise<KeyView[]> => {
  const owned = new Set(await Promise.all((await identitiesAtHand(env)).map(recipientOf)))
  return (await listKeys(env.catalog.db)).map((key) => ({ ...key, at_hand: owned.has(key.recipient) }))
}

const noSuchKey = (name: string): BackupdError =>
  new BackupdError('key.not_found', `there is no key "${name}"`, { kind: 'notFound', hint: 'See "backupd key list".' })

/**
 * Removes the record of a key that no backup is encrypted to; the file with its private half stays. Fails with `key.not_found`, and
 * with `key.in_use` for one that backups need, or the last one while a schedule encrypts.
 */
export const dropKey = (env: Environment, name: string): Promise<Key> =>
  recorded(env, { event: 'key.removed', action: 'delete', type: 'key', name, risk: 'medium' }, async (tx) => {
    const key = await findKey(tx, name)
    if (key === undefined) throw noSuchKey(name)
    const { executions } = await usesOfKey(tx, key)
    refuseInUse('key', name, counted(executions, 'execution'), 'Take it out of use for new backups with "backupd key retire".')
    if (key.retired_at === null && (await activeKeys(tx)).every(({ id }) => id === key.id)) {
      refuseInUse('key', name, named(await encryptingSchedules(tx), 'schedule'), 'It is the last one: make or add another key first.')
    }
    await removeKey(tx, key.id)
    return { result: key, id: key.id, before: key }
  })

/** Names of the schedules that encrypt their backups. */
export const encryptingSchedules = async (tx: Db): Promise<string[]> =>
  (await listSchedules(tx)).filter(({ encrypt_backup }) => encrypt_backup).map(({ name }) => name)

/**
 * Takes a key out of use for new backups; what was encrypted to it stays readable with its private half. Fails with `key.not_found`,
 * `key.retired`, and `key.in_use` when it is the last one and a schedule encrypts.
 */
export const retireNamedKey = (env: Environment, name: string): Promise<Key> =>
  recorded(env, { event: 'key.retired', action: 'update', type: 'key', name, risk: 'medium' }, async (tx) => {
    const key = await findKey(tx, name)
    if (key === undefined) throw noSuchKey(name)
    if (key.retired_at !== null) throw new BackupdError('key.retired', `the key ${name} is retired already`, { kind: 'usage', hint: 'See "backupd key list".' })
    if ((await activeKeys(tx)).every(({ id }) => id === key.id)) {
      refuseInUse('key', name, named(await encryptingSchedules(tx), 'schedule'), 'It is the last one: make or add another key first.')
    }
    const row = (await retireKey(tx, key.id)) ?? key
    return { result: row, id: row.id, before: key, after: row }
  })
