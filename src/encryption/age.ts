import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import { Decrypter, Encrypter } from 'age-encryption'
import { abortable, asBuffer, createReader, type ByteReader } from '../storage/bytes.js'
import { BackupdError, messageOf } from '../errors.js'
import type { Secret } from '../secret.js'
import type { ByteSource } from '../storage/storage.js'
import { parseRecipient } from './keys.js'

// The age v1 file format: https://c2sp.org/age. Header by the age-encryption package; payload here, as node:crypto is eight times as fast.
const CHUNK = 64 * 1024
const TAG = 16
const NONCE = 16
/** Chunks that are handed on together: 1 MiB. */
const BATCH = 16
/** A header larger than this is not one; each recipient takes about 100 bytes. */
const LARGEST_HEADER = 64 * 1024
const CIPHER = 'chacha20-poly1305'
const NOTHING = Buffer.alloc(0)

const corrupt = (why: string, cause?: unknown): BackupdError =>
  new BackupdError('encryption.corrupt', `the encrypted data is damaged: ${why}`, {
    kind: 'integrity',
    hint: 'The stored bytes differ from what was written. Check the storage, and use another backup.',
    ...(cause === undefined ? {} : { cause }),
  })

const payloadKey = (fileKey: Uint8Array, nonce: Uint8Array): Buffer => Buffer.from(hkdfSync('sha256', fileKey, nonce, 'payload', 32))

/** The nonce of chunk `index`: an 11 byte counter, then 1 for the last chunk. 2^48 chunks of 64 KiB are more than any stream. */
const chunkNonce = (index: number, last: boolean): Buffer => {
  const nonce = Buffer.alloc(12)
  nonce.writeUIntBE(index, 5, 6)
  nonce[11] = last ? 1 : 0
  return nonce
}

/** The header for `recipients`, and the file key that it wraps. */
const createHeader = async (recipients: readonly string[]): Promise<{ header: Uint8Array; fileKey: Uint8Array }> => {
  if (recipients.length === 0) {
    throw new BackupdError('encryption.no_recipient', 'there is no key to encrypt to', {
      kind: 'configuration',
      hint: 'Make one with `backupd key generate`, or add a public key with `backupd key add`.',
    })
  }
  const encrypter = new Encrypter()
  for (const recipient of recipients) encrypter.addRecipient(parseRecipient(recipient))
  let fileKey = new Uint8Array()
  // A recipient that adds nothing to the header, and sees the key that the others wrap.
  encrypter.addRecipient({
    wrapFileKey: (key) => {
      fileKey = Uint8Array.from(key)
      return []
    },
  })
  const empty = await encrypter.encrypt(new Uint8Array())
  return { header: empty.subarray(0, empty.length - NONCE - TAG), fileKey }
}

/** Bytes that arrive in any sizes, taken in chunks. */
const createQueue = () => {
  let pieces: Buffer[] = []
  let length = 0
  return {
    get length() {
      return length
    },
    add: (bytes: Buffer): void => {
      pieces.push(bytes)
      length += bytes.length
    },
    /** The first `wanted` bytes, as the pieces they came in. */
    take: (wanted: number): Buffer[] => {
      const taken: Buffer[] = []
      let missing = wanted
      let used = 0
      while (missing > 0) {
        const piece = pieces[used] as Buffer
        taken.push(piece.subarray(0, missing))
        if (piece.length > missing) pieces[used] = piece.subarray(missing)
        else used += 1
        missing -= Math.min(missing, piece.length)
      }
      pieces = pieces.slice(used)
      length -= wanted
      return taken
    },
  }
}

/** Collects sealed or opened chunks into buffers of `BATCH` chunks. */
const createBatch = (chunkSize: number) => {
  let buffer = Buffer.allocUnsafeSlow(BATCH * chunkSize)
  let filled = 0
  let fresh = true
  return {
    add: (bytes: Uint8Array): void => {
      buffer.set(bytes, filled)
      filled += bytes.length
    },
    full: (): boolean => filled + chunkSize > buffer.length,
    /** What was collected; the first time with `start` in front. */
    take: (start: Buffer = NOTHING): Buffer => {
      const taken = buffer.subarray(0, filled)
      buffer = Buffer.allocUnsafeSlow(BATCH * chunkSize)
      filled = 0
      const first = fresh && start.length > 0
      fresh = false
      return first ? Buffer.concat([start, taken]) : taken
    },
  }
}

/** What encrypts one stream: `start` is what its file begins with; `seal` takes chunks off the queue. */
const createSealer = async (recipients: readonly string[], queue: ReturnType<typeof createQueue>, batch: ReturnType<typeof createBatch>) => {
  const { header, fileKey } = await createHeader(recipients)
  const nonce = randomBytes(NONCE)
  const key = payloadKey(fileKey, nonce)
  let index = 0
  return {
    start: Buffer.concat([header, nonce]),
    seal: (length: number, last: boolean): void => {
      const cipher = createCipheriv(CIPHER, key, chunkNonce(index, last), { authTagLength: TAG })
      index += 1
      for (const piece of queue.take(length)) batch.add(cipher.update(piece))
      cipher.final()
      batch.add(cipher.getAuthTag())
    },
  }
}

/**
 * Encrypts `source` to one or more X25519 recipients as one age file, given in buffers of about 1 MiB.
 * Fails with `encryption.no_recipient` and `key.recipient_invalid`.
 */
export async function* encrypt(source: ByteSource, { recipients }: { recipients: readonly string[] }): AsyncGenerator<Buffer, void, void> {
  const queue = createQueue()
  const batch = createBatch(CHUNK + TAG)
  let sealer: Awaited<ReturnType<typeof createSealer>> | undefined
  for await (const bytes of source) {
    // Started in here, so that whatever fails closes the source.
    sealer ??= await createSealer(recipients, queue, batch)
    if (bytes.length > 0) queue.add(asBuffer(bytes))
    // A full chunk waits for a byte behind it: only then is it known not to be the last, which its nonce has to say.
    while (queue.length > CHUNK) {
      sealer.seal(CHUNK, false)
      if (batch.full()) yield batch.take(sealer.start)
    }
  }
  sealer ??= await createSealer(recipients, queue, batch)
  sealer.seal(queue.length, true)
  yield batch.take(sealer.start)
}

const MAC_LINE = Buffer.from('\n--- ')

/** The header up to and with the line of its MAC. */
const readHeader = async (reader: ByteReader): Promise<{ header: Buffer; rest: Buffer }> => {
  let seen: Buffer = Buffer.alloc(0)
  for (;;) {
    const piece = await reader.some(4096)
    if (piece.length === 0 || seen.length > LARGEST_HEADER) throw corrupt(seen.length === 0 ? 'it is empty' : 'it has no age header')
    seen = Buffer.concat([seen, piece])
    const mac = seen.indexOf(MAC_LINE)
    const end = mac < 0 ? -1 : seen.indexOf('\n', mac + MAC_LINE.length)
    if (end >= 0) return { header: seen.subarray(0, end + 1), rest: seen.subarray(end + 1) }
  }
}

const noIdentity = (identities: number, recipients: readonly string[] | undefined): BackupdError => {
  const wanted = recipients === undefined || recipients.length === 0 ? '' : `; it was encrypted to ${recipients.join(', ')}`
  const message = identities === 0 ? 'no private key was given to decrypt with' : 'none of the private keys given can decrypt this'
  return new BackupdError('encryption.no_identity', `${message}${wanted}`, {
    kind: 'configuration',
    hint: 'Set BACKUPD_IDENTITY_FILE to the file with the age private key of one of the recipients.',
    ...(recipients === undefined ? {} : { details: { recipients: [...recipients] } }),
  })
}

const openHeader = async (header: Buffer, identities: readonly Secret[], recipients: readonly string[] | undefined): Promise<Uint8Array> => {
  if (identities.length === 0) throw noIdentity(0, recipients)
  const decrypter = new Decrypter()
  for (const identity of identities) decrypter.addIdentity(identity.reveal())
  try {
    return await decrypter.decryptHeader(header)
  } catch (error) {
    if (messageOf(error).startsWith('no identity matched')) throw noIdentity(identities.length, recipients)
    throw corrupt(`its header is wrong (${messageOf(error)})`, error)
  }
}

const open = (key: Buffer, index: number, last: boolean, sealed: Buffer): Buffer => {
  const decipher = createDecipheriv(CIPHER, key, chunkNonce(index, last), { authTagLength: TAG })
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG))
  const plain = decipher.update(sealed.subarray(0, sealed.length - TAG))
  try {
    decipher.final()
  } catch (error) {
    throw corrupt(last ? 'it is cut off or changed at its end' : `it is changed near byte ${index * (CHUNK + TAG)} of its content`, error)
  }
  return plain
}

export interface DecryptOptions {
  /** age private keys; the first that fits is used. */
  identities: readonly Secret[]
  /** Who it was encrypted to, where known, for the error that says which key is missing. */
  recipients?: readonly string[]
  signal: AbortSignal
}

/**
 * Decrypts an age file, given in buffers of about 1 MiB. No byte is given before its chunk is authenticated.
 * Fails with `encryption.no_identity`, and `encryption.corrupt` for anything changed, cut off, reordered or added.
 */
export async function* decrypt(source: ByteSource, { identities, recipients, signal }: DecryptOptions): AsyncGenerator<Buffer, void, void> {
  const input = createReader(abortable(source, signal))
  let reader = input
  try {
    const { header, rest } = await readHeader(input)
    const fileKey = await openHeader(header, identities, recipients)
    reader = createReader(behind(rest, input))
    const nonce = await reader.read(NONCE)
    if (nonce.length < NONCE) throw corrupt('it ends behind its header')
    const key = payloadKey(fileKey, nonce)
    const batch = createBatch(CHUNK)
    for (let index = 0, last = false; !last; index += 1) {
      const sealed = await reader.read(CHUNK + TAG)
      last = await reader.atEnd()
      if (sealed.length < TAG || (sealed.length === TAG && index > 0)) throw corrupt('it is cut off')
      batch.add(open(key, index, last, sealed))
      if (last || batch.full()) yield batch.take()
    }
  } finally {
    await reader.close()
    await input.close()
  }
}

async function* behind(rest: Buffer, reader: ByteReader): AsyncGenerator<Buffer, void, void> {
  yield rest
  while (!(await reader.atEnd())) yield await reader.some(Number.MAX_SAFE_INTEGER)
}

/** Bytes of an age file with `plainSize` plain bytes, to `recipients` X25519 recipients. */
export const encryptedSize = (plainSize: number, recipients: number): number => {
  // Version line, for each recipient `-> X25519 ` with 43 characters and a body of 43, then `--- ` with 43, each with its line end.
  const header = 22 + recipients * (54 + 44) + 48
  return header + NONCE + plainSize + Math.max(1, Math.ceil(plainSize / CHUNK)) * TAG
}
