import { abortError, throwIfAborted } from '../errors.js'
import type { ByteSource } from './storage.js'

/** The same bytes as a Buffer, without a copy. */
export const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** `source` until `signal` is aborted, which ends it at once with `cancelled` (or the signal's own reason), even while a read is waiting. */
export async function* abortable<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T, void, void> {
  throwIfAborted(signal)
  const iterator = source[Symbol.asyncIterator]()
  // One listener for the whole stream: racing each read against a promise that lives as long would grow with every read.
  let stop: ((error: unknown) => void) | undefined
  const onAbort = (): void => stop?.(abortError(signal))
  signal.addEventListener('abort', onAbort, { once: true })
  let reading = false
  let ended = false
  try {
    for (;;) {
      throwIfAborted(signal)
      reading = true
      const result = await new Promise<IteratorResult<T>>((resolve, reject) => {
        stop = reject
        iterator.next().then(
          (value) => {
            reading = false
            resolve(value)
          },
          (error: unknown) => {
            reading = false
            ended = true
            reject(error as Error)
          },
        )
      })
      if (result.done === true) {
        ended = true
        return
      }
      yield result.value
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    if (!ended) {
      const closing = iterator.return?.()
      // A read that is still waiting holds up the closing of its source; whoever aborted must not wait for that.
      if (reading) closing?.catch(() => undefined)
      else await closing
    }
  }
}

/** Runs `task` on up to `window` items at a time and gives the results in the order of the items. The first failure ends it; nothing is left running. */
export async function* ordered<I, O>(items: AsyncIterable<I>, window: number, task: (item: I) => Promise<O>): AsyncGenerator<O, void, void> {
  const running: Promise<O>[] = []
  try {
    for await (const item of items) {
      const result = task(item)
      // It is awaited when its turn comes; until then a failure must not count as unhandled.
      result.catch(() => undefined)
      running.push(result)
      if (running.length >= window) yield await (running.shift() as Promise<O>)
    }
    while (running.length > 0) yield await (running.shift() as Promise<O>)
  } finally {
    await Promise.allSettled(running)
  }
}

/** Takes a stream apart by lengths. */
export interface ByteReader {
  /** The next `length` bytes, fewer only at the end of the source. Not copied where one chunk holds them all. */
  read(length: number): Promise<Buffer>
  /** Whatever is there next, at most `limit` bytes; empty at the end. */
  some(limit: number): Promise<Buffer>
  atEnd(): Promise<boolean>
  /** Closes the source. */
  close(): Promise<void>
}

const EMPTY: Buffer = Buffer.alloc(0)

/** Reads `source` by lengths; holds one chunk of it at a time. */
export const createReader = (source: ByteSource): ByteReader => {
  const iterator = source[Symbol.asyncIterator]()
  let chunk = EMPTY
  let ended = false

  const atEnd = async (): Promise<boolean> => {
    while (chunk.length === 0 && !ended) {
      const result = await iterator.next()
      if (result.done === true) ended = true
      else chunk = asBuffer(result.value)
    }
    return chunk.length === 0
  }

  const take = (length: number): Buffer => {
    const bytes = chunk.subarray(0, length)
    chunk = chunk.subarray(bytes.length)
    return bytes
  }

  const some = async (limit: number): Promise<Buffer> => ((await atEnd()) ? EMPTY : take(limit))

  return {
    atEnd,
    some,
    read: async (length) => {
      if (chunk.length >= length) return take(length)
      const bytes = Buffer.allocUnsafe(length)
      let filled = 0
      while (filled < length) {
        const piece = await some(length - filled)
        if (piece.length === 0) return bytes.subarray(0, filled)
        filled += piece.copy(bytes, filled)
      }
      return bytes
    },
    close: async () => {
      if (ended) return
      ended = true
      await iterator.return?.()
    },
  }
}
