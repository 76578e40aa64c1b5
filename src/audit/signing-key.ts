import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupdError, messageOf } from '../errors.js'
import { makePrivateFile } from '../private-file.js'
import { Secret } from '../secret.js'

export interface KeyPlaces {
  /** The private key in PEM (PKCS #8); undefined means the file in the state directory. */
  auditKey: Secret | undefined
  stateDir: string
}

const failed = (message: string, hint: string, cause?: unknown): BackupdError => new BackupdError('audit.key', message, { kind: 'configuration', hint, cause })

const fileOf = ({ stateDir }: KeyPlaces): string => join(stateDir, 'audit-signing.pem')

const parsePrivate = (pem: string, where: string): KeyObject => {
  const wrong = (cause?: unknown): BackupdError =>
    failed(`${where} is not an Ed25519 private key in PEM`, 'Make one with "openssl genpkey -algorithm ed25519", or remove the file to have one made.', cause)
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch {
    // What the parser says may quote the key.
    throw wrong()
  }
  if (key.asymmetricKeyType !== 'ed25519') throw wrong()
  return key
}

const readKeyFile = async (file: string): Promise<KeyObject | undefined> => {
  let pem: string
  try {
    pem = await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw failed(`the signing key ${file} cannot be read: ${messageOf(error)}`, 'Make it readable for the user that backupd runs as.', error)
  }
  return parsePrivate(new Secret(pem).reveal(), file)
}

/** The private key, if there is one. Fails with `audit.key`. */
export const findSigningKey = async (places: KeyPlaces): Promise<KeyObject | undefined> =>
  places.auditKey === undefined ? readKeyFile(fileOf(places)) : parsePrivate(places.auditKey.reveal(), 'BACKUPD_AUDIT_KEY')

/** The private key; one is made in the state directory (mode 0600) when there is none. Of several that make it at once, one wins. Fails with `audit.key`. */
export const loadSigningKey = async (places: KeyPlaces): Promise<KeyObject> => {
  const found = await findSigningKey(places)
  if (found !== undefined) return found
  const file = fileOf(places)
  try {
    await makePrivateFile(file, () => generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString())
  } catch (error) {
    throw failed(`the signing key ${file} cannot be made: ${messageOf(error)}`, 'Make the state directory writable, name another one in BACKUPD_STATE_DIR, or set BACKUPD_AUDIT_KEY_FILE.', error)
  }
  const made = await readKeyFile(file)
  if (made === undefined) throw failed(`the signing key ${file} vanished`, 'Start again.')
  return made
}

/** The public half in PEM, and its fingerprint: SHA-256 of its DER form, hex. */
export const describePublic = (key: KeyObject): { pem: string; fingerprint: string } => {
  const half = key.type === 'public' ? key : createPublicKey(key)
  return {
    pem: half.export({ type: 'spki', format: 'pem' }).toString(),
    fingerprint: createHash('sha256').update(half.export({ type: 'spki', format: 'der' })).digest('hex'),
  }
}

/** Reads a public key from a PEM file. Fails with `audit.key`. */
export const readPublicKey = async (file: string): Promise<KeyObject> => {
  const hint = 'Name a file with what "backupd audit logs key" prints.'
  let key: KeyObject
  try {
    key = createPublicKey(await readFile(file, 'utf8'))
  } catch (error) {
    throw failed(`the public key ${file} cannot be read: ${messageOf(error)}`, hint, error)
  }
  if (key.asymmetricKeyType !== 'ed25519') throw failed(`${file} is not an Ed25519 public key`, hint)
  return key
}

/** The public half of a private key. */
export const publicOf = (key: KeyObject): KeyObject => createPublicKey(key)
