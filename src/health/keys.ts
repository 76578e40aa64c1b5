import { activeKeys, type Key } from '../catalog/keys.js'
import type { Schedule } from '../catalog/schedules.js'
import { recipientOf } from '../encryption/keys.js'
import type { Secret } from '../secret.js'
import { findingOf, type Check, type Finding } from './check.js'

const generate = 'Make one with "backupd key generate", or add a public key with "backupd key add".'

const publicKeys = (keys: readonly Key[], wanted: readonly Schedule[], catalogBackup: boolean): Finding => {
  const encrypting = wanted.filter(({ encrypt_backup }) => encrypt_backup).map(({ name }) => name)
  const subject = 'keys'
  if (keys.length > 0) return { subject, level: 'healthy', message: `new backups are encrypted to ${keys.map(({ name }) => name).join(', ')}` }
  if (encrypting.length === 0 && wanted.length > 0) {
    return { subject, level: 'healthy', message: `there is no key, and no schedule encrypts${catalogBackup ? '; the catalog itself is backed up only once there is one' : ''}` }
  }
  if (encrypting.length === 0) return { subject, level: 'warning', message: 'there is no key, so backups cannot be encrypted, and the catalog is not backed up', advice: generate }
  return { subject, level: 'critical', message: `there is no key, and these schedules encrypt: ${encrypting.join(', ')}`, advice: generate }
}

const privateKeys = async (keys: readonly Key[], identities: readonly Secret[]): Promise<Finding> => {
  const owned = new Set(await Promise.all(identities.map(recipientOf)))
  const held = keys.filter(({ recipient }) => owned.has(recipient)).map(({ name }) => name)
  // A backup host needs public keys only; it is a good set-up, not a lack.
  const message = held.length === 0 ? 'none at hand: backups are verified by their checksums only, and restored where the keys are' : `at hand: ${held.join(', ')}`
  return { subject: 'private keys', level: 'healthy', message }
}

/** There is a key to encrypt to, and the private keys at hand can be read. */
export const keysCheck: Check = {
  name: 'keys',
  type: 'system',
  scope: 'shared',
  needsCatalog: true,
  run: async ({ config, catalog, identities, schedules }) => {
    const { db } = await catalog()
    const keys = await activeKeys(db)
    const active = (await schedules()).filter(({ is_active }) => is_active)
    const second = await identities().then((found) => privateKeys(keys, found), (error: unknown) => findingOf('private keys', error))
    return [publicKeys(keys, active, config.catalogBackup), second]
  },
}
