import { closeIterator, linkedAbort, patience } from './wait.js'
import type { ByteSource } from './storage.js'

export interface Chunk {
  index: number
  /** Of its first byte in the object. */
  offset: number
  /** Overwritten once `send` has resolved. */
  data: Buffer
  /** Whether the source ended with it. */
  last: boolean
}

/** Bytes of a chunk: one number, or by number and offset of the chunk. */
export type ChunkSize = number | ((index: number, offset: number) => number)

export interface ChunkOptions {
  size: ChunkSize
  signal: AbortSignal
  /** Where the memory for a chunk of `size` bytes comes from. */
  memory?: (size: number) => Buffer
}

/** Regroups `source` into chunks of exactly `size` bytes, the last one shorter; an empty source gives one empty chunk. Closes the source when stopped. */
export const chunksOf = async function* (source: ByteSource, { size, signal, memory = Buffer.allocUnsafeSlow }: ChunkOptions): AsyncGenerator<Chunk, void, undefined> {
  const sizeOf = typeof size === 'number' ? () => size : size
  const iterator = source[Symbol.asyncIterator]()
  const wait = patience({ signal })
  let ended = false
  try {
    let chunk = { index: 0, offset: 0, data: memory(sizeOf(0, 0)) }
    let filled = 0
    for (;;) {
      const next = await wait.for(iterator.next())
      if (next.done === true) break
      for (let taken = 0; taken < next.value.length; ) {
        // Only now is it known that a full chunk is not the last one.
        if (filled === chunk.data.length) {
          yield { ...chunk, last: false }
          const index = chunk.index + 1
          const offset = chunk.offset + filled
          chunk = { index, offset, data: memory(sizeOf(index, offset)) }
          filled = 0
        }
        const part = next.value.subarray(taken, taken + chunk.data.length - filled)
        chunk.data.set(part, filled)
        filled += part.length
        taken += part.length
      }
    }
    ended = true
    yield { ...chunk, data: chunk.data.subarray(0, filled), last: true }
  } finally {
    wait.end()
    if (!ended) closeIterator(iterator)
  }
}

export interface SendOptions<T> {
  source: ByteSource
  size: ChunkSize
  /** Chunks in flight at once, at least 1. One more is being filled meanwhile. */
  parallel: number
  /** Bytes in flight at once, for chunks that grow; one chunk is always allowed. */
  memory?: number
  signal: AbortSignal
  /** Sends one chunk, with retries of its own. Called in order; calls overlap. Must end soon after its signal aborts. */
  send(chunk: Chunk, signal: AbortSignal): Promise<T>
}

/**
 * Sends all of `source` in chunks, `parallel` at a time. The first failure (of the source, of a chunk, an abort) stops the rest,
 * closes the source and is thrown once nothing is in flight any more. Memory: (`parallel` + 1) chunks.
 */
export const sendChunks = async <T>({ source, size, parallel, memory = Infinity, signal, send }: SendOptions<T>): Promise<{ size: number; results: T[] }> => {
  const stop = linkedAbort(signal)
  const flying = new Set<Promise<void>>()
  const spare: Buffer[] = []
  const results: T[] = []
  let bytesFlying = 0
  let total = 0
  let failure: { error: unknown } | undefined
  const fail = (error: unknown): void => {
    failure ??= { error }
    stop.abort(error)
  }
  const launch = async (chunk: Chunk): Promise<void> => {
    bytesFlying += chunk.data.length
    try {
      results[chunk.index] = await send(chunk, stop.signal)
      // The server has all of it, so nothing reads this memory any more; reuse keeps memory flat where the collector would lag behind.
      if (!chunk.last) spare.push(chunk.data)
    } catch (error) {
      fail(error)
    } finally {
      bytesFlying -= chunk.data.length
    }
  }
  const take = (bytes: number): Buffer => {
    const old = spare.pop()
    return old?.length === bytes ? old : Buffer.allocUnsafeSlow(bytes)
  }
  try {
    for await (const chunk of chunksOf(source, { size, signal: stop.signal, memory: take })) {
      while (flying.size >= parallel || (flying.size > 0 && bytesFlying + chunk.data.length > memory)) await Promise.race(flying)
      if (failure !== undefined) break
      total += chunk.data.length
      const flight = launch(chunk).finally(() => flying.delete(flight))
      flying.add(flight)
    }
  } catch (error) {
    fail(error)
  }
  await Promise.all(flying)
  stop.release()
  if (failure !== undefined) throw failure.error
  return { size: total, results }
}
