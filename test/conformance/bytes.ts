import { createCipheriv, createHash } from 'node:crypto'
import type { ByteSource } from '../../src/storage/storage.js'

/** `size` bytes that depend on `seed` only, in blocks of odd sizes. */
export const bytes = async function* (seed: number, size: number): AsyncGenerator<Uint8Array, void, undefined> {
  const key = createHash('sha256').update(String(seed)).digest().subarray(0, 16)
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16))
  for (let made = 0, block = 1; made < size; block = Math.min(block * 3, 130_001)) {
    const length = Math.min(block, size - made)
    yield cipher.update(Buffer.alloc(length))
    made += length
  }
}

export interface Digest {
  size: number
  sha256: string
}

/** Length and SHA-256 of all of `source`. */
export const digestOf = async (source: ByteSource): Promise<Digest> => {
  const hash = createHash('sha256')
  let size = 0
  for await (const block of source) {
    hash.update(block)
    size += block.length
  }
  return { size, sha256: hash.digest('hex') }
}

/** All of `source` in one piece. */
export const collect = async (source: ByteSource): Promise<Buffer> => {
  const blocks: Uint8Array[] = []
  for await (const block of source) blocks.push(block)
  return Buffer.concat(blocks)
}

/** `size` bytes of `seed`, then `error`. */
export const failing = async function* (seed: number, size: number, error: Error): AsyncGenerator<Uint8Array, void, undefined> {
  yield* bytes(seed, size)
  throw error
}

/** `size` bytes of `seed`, then nothing until `signal` aborts; says through `closed` that its reader let go of it. */
export const stalling = (seed: number, size: number): { source: ByteSource; reached: Promise<void>; closed: () => boolean } => {
  let closed = false
  let arrive = (): void => undefined
  const reached = new Promise<void>((resolve) => { arrive = resolve })
  const inner = bytes(seed, size)
  const iterator: AsyncIterator<Uint8Array, void> = {
    next: async () => {
      const next = await inner.next()
      if (next.done !== true) return next
      arrive()
      return new Promise<never>(() => undefined)
    },
    return: async () => {
      closed = true
      return { done: true, value: undefined }
    },
  }
  return { source: { [Symbol.asyncIterator]: () => iterator }, reached, closed: () => closed }
}
