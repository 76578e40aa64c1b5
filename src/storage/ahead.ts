import { readWithResume, type OpenRange, type Range, type ResumeOptions } from './resume.js'
import type { ByteSource } from './storage.js'
import { linkedAbort } from './wait.js'

/** How a long read is cut. Tests change it. */
export const pieces = {
  /** Bytes of a piece. */
  size: 8 * 1024 * 1024,
  /** Pieces in flight at most, whatever is asked for: this bounds the memory. */
  most: 8,
  /** Bytes per second that one connection must bring to be left alone: several cost more processor time, and help only where each is slow. */
  enough: 100_000_000,
  /** After so many pieces over one connection its speed is judged anew. */
  stretch: 32,
}

/** Takes in all of `body` as it comes, whether or not anybody reads; gives it in order, or the error that ended it. */
const takeIn = (body: ByteSource): ByteSource => {
  const blocks: Uint8Array[] = []
  let ended = false
  let failure: { error: unknown } | undefined
  let wake = (): void => undefined
  const take = async (): Promise<void> => {
    try {
      for await (const block of body) {
        blocks.push(block)
        wake()
      }
    } catch (error) {
      failure = { error }
    }
    ended = true
    wake()
  }
  void take()
  return (async function* () {
    for (;;) {
      const block = blocks.shift()
      if (block !== undefined) yield block
      else if (failure !== undefined) throw failure.error
      else if (ended) return
      else await new Promise<void>((resolve) => (wake = resolve))
    }
  })()
}

/** `source` as it is; tells what came, and how long it was waited for. */
const timed = async function* (source: ByteSource, tell: (bytes: number, milliseconds: number) => void): AsyncGenerator<Uint8Array, void, undefined> {
  let since = performance.now()
  for await (const block of source) {
    tell(block.length, performance.now() - since)
    yield block
    since = performance.now()
  }
}

/**
 * Like `readWithResume`, with up to `parallel` ranges of the object asked for at once where one connection is slow: services and long
 * lines limit each connection more than all of them. The first answer tells size and version; the later ones are of that version, or
 * fail with `storage.changed`. Memory: the pieces in flight.
 */
export const readAhead = async function* <Tag>(options: ResumeOptions<Tag>, parallel: number): AsyncGenerator<Uint8Array, void, undefined> {
  const { offset = 0, length = Infinity } = options
  const window = Math.min(parallel, pieces.most)
  if (window === 1 || length <= pieces.size) return yield* readWithResume(options)
  const stop = linkedAbort(options.signal)
  let found: { end: number; tag: Tag | undefined } | undefined
  const open = async (range: Range, tag: Tag | undefined, signal: AbortSignal): Promise<OpenRange<Tag>> => {
    const opened = await options.open(range, tag, signal)
    found ??= { end: Math.min(opened.size, offset + length), tag: opened.tag }
    return opened
  }
  const range = (from: number, size: number): ByteSource =>
    readWithResume({ ...options, open, offset: from, length: Math.min(size, (found?.end ?? Infinity) - from), tag: found?.tag, signal: stop.signal })
  try {
    let next = offset
    let size = pieces.size
    let end = Infinity
    for (let speed = Infinity; speed >= pieces.enough; size = pieces.stretch * pieces.size) {
      let bytes = 0
      let waited = 0
      yield* timed(range(next, size), (came, milliseconds) => {
        bytes += came
        waited += milliseconds
      })
      next += size
      end = found?.end ?? next
      if (next >= end) return
      // Without a version to ask for, two pieces at once might be of two objects.
      speed = found?.tag === undefined ? Infinity : (bytes * 1000) / waited
    }
    const coming: ByteSource[] = []
    for (;;) {
      for (; coming.length < window && next < end; next += pieces.size) coming.push(takeIn(range(next, pieces.size)))
      const piece = coming.shift()
      if (piece === undefined) return
      yield* piece
    }
  } finally {
    stop.abort(new Error('the reader is done'))
    stop.release()
  }
}
