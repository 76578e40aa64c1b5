import { readWithResume, type OpenRange, type Range, type ResumeOptions } from './resume.js'
import type { ByteSource } from './storage.js'
import { linkedAbort } from './wait.js'

const MiB = 1024 * 1024

/** How a long read is cut. Tests change it. */
export const pieces = {
  /** Bytes of the first piece, which comes over one connection. */
  size: 8 * MiB,
  /** Bytes of one that comes beside others: large ones ask less often, small ones end together. */
  least: 4 * MiB,
  largest: 16 * MiB,
  /** Pieces in flight at most, whatever is asked for. */
  most: 8,
  /** Bytes of all pieces that are in flight or wait for their turn. */
  memory: 64 * MiB,
  /** Bytes per second that one connection must bring to be left alone: several cost more processor time, and help only where each is slow. */
  enough: 100_000_000,
  /** A connection is judged after so many bytes or milliseconds of waiting, whichever comes first: soon where it is slow, not by one hiccup where it is fast. */
  first: { bytes: 6 * MiB, ms: 100 },
  /** One that was found fast, anew after so many; its next range is as long. */
  again: { bytes: 256 * MiB, ms: 1000 },
}

/** Takes in all of `body` as it comes, whether or not anybody reads; gives it in order, or the error that ended it. `done` is called at its end. */
const takeIn = (body: ByteSource, done: () => void): ByteSource => {
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
    done()
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

/** Told of each block and how long it was waited for (not of the first one of a range, which the service needed time to find), says when a connection is too slow. */
const judgeOfSpeed = (): ((bytes: number, milliseconds: number) => boolean) => {
  let sample = { ...pieces.first, came: 0, waited: 0 }
  return (bytes, milliseconds) => {
    sample.came += bytes
    sample.waited += milliseconds
    if (sample.came < sample.bytes && sample.waited < sample.ms) return false
    const slow = (sample.came * 1000) / sample.waited < pieces.enough
    sample = { ...pieces.again, came: 0, waited: 0 }
    return slow
  }
}

const ahead = async function* <Tag>(options: ResumeOptions<Tag>, window: number): AsyncGenerator<Uint8Array, void, undefined> {
  const { offset = 0, length = Infinity } = options
  const stop = linkedAbort(options.signal)
  let found: { end: number; tag: Tag | undefined } | undefined
  const open = async (range: Range, tag: Tag | undefined, signal: AbortSignal): Promise<OpenRange<Tag>> => {
    const opened = await options.open(range, tag, signal)
    found ??= { end: Math.min(opened.size, offset + length), tag: opened.tag }
    return opened
  }
  const range = (from: number, size: number): ByteSource =>
    readWithResume({ ...options, open, offset: from, length: Math.min(size, (found?.end ?? Infinity) - from), tag: found?.tag, signal: stop.signal })

  const coming: { bytes: number; body: ByteSource }[] = []
  let next = offset
  let flying = 0
  const launch = (): void => {
    const end = found?.end ?? next
    while (!stop.signal.aborted && flying < window && next < end) {
      const left = end - next
      // What is left is cut ever smaller, so that the last ones end together.
      const bytes = Math.min(left, pieces.largest, Math.max(pieces.least, Math.ceil(left / (2 * window))))
      if (coming.length > 0 && coming.reduce((sum, piece) => sum + piece.bytes, bytes) > pieces.memory) return
      flying += 1
      const body = takeIn(range(next, bytes), () => {
        flying -= 1
        launch()
      })
      coming.push({ bytes, body })
      next += bytes
    }
  }
  try {
    const tooSlow = judgeOfSpeed()
    let slow = false
    let beside = false
    for (let size = pieces.size; !slow && next < (found?.end ?? Infinity); size = pieces.again.bytes) {
      let position = next
      next += size
      let since: number | undefined
      for await (const block of range(position, size)) {
        position += block.length
        // Without a version to ask for, two pieces at once might be of two objects.
        if (!slow && since !== undefined && found?.tag !== undefined && tooSlow(block.length, performance.now() - since)) {
          slow = true
          // A short rest goes on beside the others; a long one is cut anew.
          beside = next - position <= pieces.size
          if (beside) {
            flying += 1
            launch()
          } else {
            next = position
          }
        }
        yield block
        if (slow && !beside) break
        since = performance.now()
      }
      if (found === undefined) return
    }
    if (beside) flying -= 1
    for (;;) {
      launch()
      const piece = coming.shift()
      if (piece === undefined) return
      yield* piece.body
    }
  } finally {
    stop.abort(new Error('the reader is done'))
    stop.release()
  }
}

/**
 * Like `readWithResume`, with up to `parallel` ranges of the object asked for at once where one connection is slow: services and long
 * lines limit each connection more than all of them. The first answer tells size and version; the later ones are of that version, or
 * fail with `storage.changed`. Memory: the pieces in flight and those that wait for their turn.
 */
export const readAhead = <Tag>(options: ResumeOptions<Tag>, parallel: number): AsyncGenerator<Uint8Array, void, undefined> => {
  const window = Math.min(parallel, pieces.most)
  return window === 1 || (options.length ?? Infinity) <= pieces.size ? readWithResume(options) : ahead(options, window)
}
