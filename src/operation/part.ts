import type { Codec, FrameCompressor } from '../compression/codec.js'
import { encrypt } from '../encryption/age.js'
import { BackupdError } from '../errors.js'
import { createDigest } from '../pipeline/digest.js'
import { compressFrames } from '../pipeline/frames.js'
import { createCounter } from '../pipeline/count.js'
import type { Throttle } from '../pipeline/throttle.js'
import { partKey, type PartKind } from '../repository/keys.js'
import type { Part } from '../repository/manifest.js'
import type { ByteSource, Storage } from '../storage/storage.js'

/** How the parts of one backup are made. */
export interface PartWriter {
  backupId: string
  storage: Storage
  codec: Codec
  compressor: FrameCompressor
  /** age recipients; empty when the parts are not encrypted. */
  recipients: readonly string[]
  throttle: Throttle | undefined
  /** Told of every plain and stored byte as it passes. */
  onBytes(moved: { plain: number; stored: number }): void
  signal: AbortSignal
}

/** Stores `plain` as one part: the data's way through the house. The part is in the storage whole when this resolves, and not at all when it rejects. */
export const writePart = async (writer: PartWriter, kind: PartKind, plain: ByteSource, number = 0): Promise<Part> => {
  const { codec, recipients, throttle, signal } = writer
  const key = partKey(writer.backupId, kind, { suffix: codec.suffix, encrypted: recipients.length > 0 }, number)
  const counted = createCounter((bytes) => writer.onBytes({ plain: bytes, stored: 0 }))
  const digest = createDigest((bytes) => writer.onBytes({ plain: 0, stored: bytes }))
  let frames = 0

  let stream = counted.stage(plain)
  if (codec.type !== 'none') stream = compressFrames(stream, writer.compressor, { signal, onFrame: () => (frames += 1) })
  if (recipients.length > 0) stream = encrypt(stream, { recipients: [...recipients] })
  stream = digest.stage(stream)
  if (throttle !== undefined) stream = throttle.stage(stream, signal)
  const { size } = await writer.storage.write(key, stream, { signal })

  if (size !== digest.bytes) {
    throw new BackupdError('storage.size', `${writer.storage.location(key)} holds ${size} bytes of ${digest.bytes}`, { retryable: true, details: { part: key } })
  }
  return { key, kind, plain_size: counted.bytes, stored_size: size, sha256: digest.sha256(), frames }
}
