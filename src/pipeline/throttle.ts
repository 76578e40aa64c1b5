import { setTimeout as sleep } from 'node:timers/promises'
import { abortError, BackupdError, throwIfAborted } from '../errors.js'
import { asBuffer } from '../storage/bytes.js'
import type { ByteSource } from '../storage/storage.js'

/** Slows streams down to a rate that all of them share. */
export interface Throttle {
  /** `source`, no faster than the rate; ends at once when `signal` is aborted. */
  stage(source: ByteSource, signal: AbortSignal): ByteSource
}

/** Bytes are let through in pieces of this many milliseconds' worth, so that the rate holds over short times too. */
const PIECE_MS = 50
const SMALLEST_PIECE = 1024
const LARGEST_PIECE = 1024 * 1024

const wait = async (milliseconds: number, signal: AbortSignal): Promise<void> => {
  try {
    await sleep(milliseconds, undefined, { signal })
  } catch (error) {
    throw signal.aborted ? abortError(signal) : error
  }
}

/** A limit of `mbps` megabits (1,000,000 bits) per second for all streams that go through it together. */
export const createThrottle = (mbps: number): Throttle => {
  if (!(mbps > 0) || !Number.isFinite(mbps)) {
    throw new BackupdError('throttle.rate', `${mbps} is not a bandwidth`, { kind: 'usage', hint: 'Give a number of megabits per second above 0.' })
  }
  const bytesPerMs = (mbps * 1_000_000) / 8 / 1000
  const piece = Math.round(Math.min(LARGEST_PIECE, Math.max(SMALLEST_PIECE, bytesPerMs * PIECE_MS)))
  // When the line is free again, as if it were one wire: each piece takes its time on it, whichever stream it is of.
  let freeAt: number | undefined
  return {
    async *stage(source, signal) {
      for await (const bytes of source) {
        const chunk = asBuffer(bytes)
        for (let from = 0; from < chunk.length; from += piece) {
          throwIfAborted(signal)
          const part = chunk.subarray(from, from + piece)
          // A pause earns no credit beyond one piece, else a burst would follow it.
          const now = performance.now()
          freeAt = Math.max(freeAt ?? now, now - PIECE_MS) + part.length / bytesPerMs
          const delay = freeAt - now
          if (delay > 1) await wait(delay, signal)
          yield part
        }
      }
    },
  }
}
