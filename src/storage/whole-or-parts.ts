import { messageOf } from '../errors.js'
import type { Log } from '../log.js'
import { sendChunks, type Chunk, type ChunkSize } from './chunks.js'
import type { ByteSource } from './storage.js'

/** Bytes in flight for one object, whatever the size of its parts; one more is being filled. */
const memoryInFlight = 96 * 1024 * 1024

/** How long cleaning up after a failure may take, milliseconds. */
export const cleanUpTime = 30_000

/** Does what is left to do after a failure, and only logs its own, so that it does not hide the first one. */
export const cleaningUp = async (what: string, { log, about, action }: { log: Log; about: object; action(signal: AbortSignal): Promise<unknown> }): Promise<void> => {
  try {
    await action(AbortSignal.timeout(cleanUpTime))
  } catch (error) {
    log.warn({ ...about, error: messageOf(error) }, `could not ${what}; it expires by itself or is swept`)
  }
}

export interface WholeOrParts<T> {
  source: ByteSource
  size: ChunkSize
  /** Parts in flight at once. */
  parallel: number
  signal: AbortSignal
  /** Sends an object that fits into one chunk. */
  whole(data: Buffer, signal: AbortSignal): Promise<void>
  /** Sends a part, with retries of its own. */
  part(chunk: Chunk, signal: AbortSignal): Promise<T>
  /** Makes the parts, in order, the object. Not called for a whole one. */
  complete(size: number, parts: T[]): Promise<void>
}

/** Sends `source`: in one request where it fits into one chunk, else in parts, several in flight, that become the object at the end. */
export const sendWholeOrParts = async <T>({ source, size: chunkSize, parallel, signal, whole, part, complete }: WholeOrParts<T>): Promise<{ size: number }> => {
  let single = false
  const { size, results } = await sendChunks<T | undefined>({
    source, size: chunkSize, parallel, memory: memoryInFlight, signal,
    send: async (chunk, stop) => {
      single = chunk.index === 0 && chunk.last
      if (!single) return part(chunk, stop)
      await whole(chunk.data, stop)
      return undefined
    },
  })
  if (!single) await complete(size, results as T[])
  return { size }
}
