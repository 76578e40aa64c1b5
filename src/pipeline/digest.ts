import { createHash } from 'node:crypto'
import type { ByteSource } from '../storage/storage.js'

/** SHA-256 and number of the bytes that passed. */
export interface Digest {
  stage(source: ByteSource): ByteSource
  /** Bytes so far. */
  readonly bytes: number
  /** In hex. Once the stream has ended; the first call closes it. */
  sha256(): string
}

/** A digest that also tells `onBytes` of each chunk that passed. */
export const createDigest = (onBytes: (bytes: number) => void = () => undefined): Digest => {
  const hash = createHash('sha256')
  let bytes = 0
  let result: string | undefined
  return {
    async *stage(source) {
      for await (const chunk of source) {
        hash.update(chunk)
        bytes += chunk.length
        onBytes(chunk.length)
        yield chunk
      }
    },
    get bytes() {
      return bytes
    },
    sha256: () => (result ??= hash.digest('hex')),
  }
}
