import { createHash } from 'node:crypto'
import { codecs } from '../compression/registry.js'
import { decrypt } from '../encryption/age.js'
import { recipientOf } from '../encryption/keys.js'
import { BackupdError } from '../errors.js'
import { parseContents, type Contents } from '../repository/contents.js'
import { manifestKey } from '../repository/keys.js'
import { manifestChecksum, parseManifest, partOfKind, type Manifest, type Part } from '../repository/manifest.js'
import type { Secret } from '../secret.js'
import type { ByteSource, Storage } from '../storage/storage.js'

// No manifest comes near; what claims to be one and is larger is not read into memory.
const LARGEST_MANIFEST = 64 * 1024 * 1024
const LARGEST_INDEX = 1024 * 1024 * 1024

const damaged = (key: string, why: string, details: Record<string, unknown> = {}): BackupdError =>
  new BackupdError('integrity.damaged', `${key}: ${why}`, { kind: 'integrity', details: { part: key, ...details } })

/** Everything that `source` gives, as one buffer. Fails with `integrity.damaged` beyond `limit` bytes. */
const collect = async (source: ByteSource, key: string, limit: number): Promise<Buffer> => {
  const blocks: Uint8Array[] = []
  let size = 0
  for await (const block of source) {
    size += block.length
    if (size > limit) throw damaged(key, `larger than ${limit} bytes`)
    blocks.push(block)
  }
  return Buffer.concat(blocks)
}

const missing = (error: unknown, key: string): unknown =>
  error instanceof BackupdError && error.code === 'storage.not_found' ? damaged(key, 'it is not in the storage') : error

/** A manifest read back, with its text's SHA-256. */
export interface ReadManifest {
  manifest: Manifest
  text: string
  checksum: string
}

/** Reads the manifest of a backup. Fails with `integrity.damaged` when it is gone or is not what `expectedChecksum` says. */
export const readManifest = async (storage: Storage, backupId: string, expectedChecksum: string | null, signal: AbortSignal): Promise<ReadManifest> => {
  const key = manifestKey(backupId)
  let text: string
  try {
    text = (await collect(storage.read(key, { signal }), key, LARGEST_MANIFEST)).toString('utf8')
  } catch (error) {
    throw missing(error, key)
  }
  const checksum = manifestChecksum(text)
  if (expectedChecksum !== null && checksum !== expectedChecksum) {
    throw damaged(key, 'it is not the manifest that the catalog knows: its SHA-256 differs', { expected: expectedChecksum, found: checksum })
  }
  const manifest = parseManifest(text, key)
  if (manifest.backup_id !== backupId) throw damaged(key, `it belongs to ${manifest.backup_id}`)
  return { manifest, text, checksum }
}

/**
 * The stored bytes of a part as they pass, compared at the end with the manifest's size and SHA-256: the stream ends without
 * error only when they agree. Fails with `integrity.damaged`.
 */
export const readStored = async function* (storage: Storage, part: Part, signal: AbortSignal, onBytes: (bytes: number) => void = () => undefined): ByteSource {
  const hash = createHash('sha256')
  let size = 0
  try {
    for await (const block of storage.read(part.key, { signal })) {
      hash.update(block)
      size += block.length
      onBytes(block.length)
      if (size > part.stored_size) break
      yield block
    }
  } catch (error) {
    throw missing(error, part.key)
  }
  if (size !== part.stored_size) throw damaged(part.key, `it holds ${size > part.stored_size ? 'more than' : size} bytes of ${part.stored_size}`, { expected_size: part.stored_size, found_size: size })
  const found = hash.digest('hex')
  if (found !== part.sha256) throw damaged(part.key, 'its bytes are not those that were stored: the SHA-256 differs', { expected: part.sha256, found })
}

/** What turns stored bytes back into plain ones. */
export interface Opening {
  manifest: Manifest
  /** age identities; may be empty for a backup that is not encrypted. */
  identities: readonly Secret[]
  signal: AbortSignal
}

// Codecs and encryption know what is wrong with the bytes, and not whose they are.
const naming = ({ key }: Part, error: unknown): unknown => {
  if (!(error instanceof BackupdError) || error.kind !== 'integrity' || error.message.startsWith(key)) return error
  const { code, kind, hint, details, message } = error
  return new BackupdError(code, `${key}: ${message}`, { kind, details: { ...details, part: key }, cause: error, ...(hint === undefined ? {} : { hint }) })
}

/** The plain bytes of a part from its stored ones: decrypted, decompressed, and as many as were dumped. */
export const openPart = async function* (stored: ByteSource, part: Part, { manifest, identities, signal }: Opening): ByteSource {
  let stream = stored
  if (manifest.recipients.length > 0) stream = decrypt(stream, { identities: [...identities], signal })
  stream = codecs[manifest.compression].decompress(stream, { signal })
  let size = 0
  try {
    for await (const block of stream) {
      size += block.length
      yield block
    }
  } catch (error) {
    throw naming(part, error)
  }
  if (size !== part.plain_size) throw damaged(part.key, `it opens to ${size} bytes of ${part.plain_size}`)
}

/** Reads the backup's index: which tables, how many rows. */
export const readContents = async (storage: Storage, opening: Opening): Promise<Contents> => {
  const part = partOfKind(opening.manifest, 'index')
  if (part === undefined) throw damaged(manifestKey(opening.manifest.backup_id), 'it names no index')
  const plain = openPart(readStored(storage, part, opening.signal), part, opening)
  return parseContents((await collect(plain, part.key, LARGEST_INDEX)).toString('utf8'), part.key)
}

/** Whether one of `identities` belongs to one of `recipients`. */
export const ownsRecipient = async (recipients: readonly string[], identities: readonly Secret[]): Promise<boolean> => {
  const owned = new Set(await Promise.all(identities.map(recipientOf)))
  return recipients.some((recipient) => owned.has(recipient))
}

/** Fails with `key.identity_missing` when the backup is encrypted and none of `identities` opens it. */
export const needIdentities = async ({ recipients }: Manifest, identities: readonly Secret[]): Promise<void> => {
  if (recipients.length === 0 || (await ownsRecipient(recipients, identities))) return
  throw new BackupdError('key.identity_missing', identities.length === 0 ? 'the backup is encrypted, and no private key is at hand' : 'the backup is encrypted to other keys than those at hand', {
    kind: 'configuration',
    hint: `Set BACKUPD_IDENTITY_FILE to a file with the private key of ${recipients.join(' or ')}.`,
  })
}
