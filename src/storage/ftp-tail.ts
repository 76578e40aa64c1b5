import { chunksOf } from './chunks.js'
import type { ByteSource } from './storage.js'
import { closeIterator } from './wait.js'

const piece = 256 * 1024

/** A source of which the last bytes are kept until the server is known to have them, so that an upload can go on where it broke. */
export interface Tail {
  /** Offset of the first byte still kept. */
  start(): number
  /** Bytes that came from the source so far. */
  end(): number
  /** Whether that is all of it. */
  ended(): boolean
  /** What the source failed with. */
  failure(): { error: unknown } | undefined
  /** The bytes from `offset` on: first those kept, then what comes. Waits for a confirmation when `most` bytes are unconfirmed. */
  from(offset: number): AsyncGenerator<Buffer, void, undefined>
  /** Resolves once a quarter of `most` is unconfirmed: time to ask what the server has. */
  filled(): Promise<void>
  /** The server has everything before `offset`. */
  confirm(offset: number): void
  /** There will be no confirmations: keep the last `most` bytes and hope that no more are on their way. */
  unconfirmed(): void
  close(): void
}

// Wakes everybody who waits for it, and nobody who comes later.
const bell = (): { rung(): Promise<void>; wake(): void } => {
  let wake: () => void = () => undefined
  let woken = new Promise<void>((resolve) => { wake = resolve })
  return {
    rung: () => woken,
    wake: () => {
      wake()
      woken = new Promise<void>((resolve) => { wake = resolve })
    },
  }
}

/** Keeps at most `most` bytes (and one piece) of `source`. */
export const tailOf = (source: ByteSource, most: number, signal: AbortSignal): Tail => {
  // What the server has is nobody's any more; used again, it keeps the collector out of the data path.
  const spare: Buffer[] = []
  const iterator = chunksOf(source, { size: piece, signal, memory: (size) => spare.pop() ?? Buffer.allocUnsafeSlow(size) })
  let pieces: Buffer[] = []
  let start = 0
  let end = 0
  let ended = false
  let blind = false
  let failure: { error: unknown } | undefined
  let pulling: Promise<void> | undefined
  const room = bell()
  const fill = bell()

  const drop = (offset: number): void => {
    const count = Math.floor((Math.min(offset, end) - start) / piece)
    if (count <= 0) return
    spare.push(...pieces.slice(0, count))
    pieces = pieces.slice(count)
    start += count * piece
  }
  // Shared, so that a piece that arrives after its upload broke is there for the next one.
  const pull = (): Promise<void> => {
    pulling ??= iterator.next().then(
      (next) => {
        pulling = undefined
        if (next.done === true) return
        pieces.push(next.value.data)
        end += next.value.data.length
        ended = next.value.last
        if (blind) drop(end - most)
        else if (end - start >= most / 4) fill.wake()
      },
      (error: unknown) => {
        failure = { error }
        throw error
      },
    )
    return pulling
  }

  return {
    start: () => start,
    end: () => end,
    ended: () => ended,
    failure: () => failure,
    from: async function* (offset) {
      for (let at = offset; ; ) {
        if (at < end) {
          const kept = pieces[Math.floor((at - start) / piece)] as Buffer
          const rest = kept.subarray((at - start) % piece)
          yield rest
          at += rest.length
        } else if (ended) return
        else if (end - start >= most && !blind) await room.rung()
        else await pull()
      }
    },
    confirm: (offset) => {
      drop(offset)
      room.wake()
    },
    unconfirmed: () => {
      blind = true
      room.wake()
    },
    filled: async () => {
      if (end - start < most / 4) await fill.rung()
    },
    close: () => closeIterator(iterator),
  }
}
