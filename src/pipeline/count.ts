import type { ByteSource } from '../storage/storage.js'

/** Counts the bytes of a stream as they pass. */
export interface Counter {
  stage(source: ByteSource): ByteSource
  /** Bytes so far. */
  readonly bytes: number
}

/** A counter that also tells `onBytes` of each chunk that passed. */
export const createCounter = (onBytes: (bytes: number) => void = () => undefined): Counter => {
  let bytes = 0
  return {
    async *stage(source) {
      for await (const chunk of source) {
        bytes += chunk.length
        onBytes(chunk.length)
        yield chunk
      }
    },
    get bytes() {
      return bytes
    },
  }
}
