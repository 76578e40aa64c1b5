import { throwIfAborted, type BackupdError } from '../errors.js'
import type { Log } from '../log.js'
import { retryClock } from './retry.js'
import { storageError } from './failure.js'
import { closeIterator, linkedAbort, patience, within } from './wait.js'
import type { ByteSource } from './storage.js'

/** How long a server may be silent before it counts as gone, milliseconds. Tests shorten it. */
export const silence = { limit: 60_000 }

// The end follows the last byte at once; a server that keeps it back gets no more time than this, milliseconds.
const endsWithin = 500

export interface Range {
  /** First byte. */
  offset: number
  /** Byte after the last one; undefined: to the end of the object. */
  end: number | undefined
}

export interface OpenRange<Tag> {
  /** The bytes of the range. */
  body: ByteSource
  /** Of the whole object, bytes. */
  size: number
  /** Says which version of the object this is; given back when the read is resumed. */
  tag: Tag | undefined
}

export interface ResumeOptions<Tag> {
  key: string
  offset?: number | undefined
  length?: number | undefined
  retryFor: number
  signal: AbortSignal
  log: Log
  /** The version to read, where it is known already. */
  tag?: Tag | undefined
  /** Asks for a range, of the version `tag` when it is given (else fails with `storage.changed`). A range that starts at or after the end gives an empty body. */
  open(range: Range, tag: Tag | undefined, signal: AbortSignal): Promise<OpenRange<Tag>>
  /** What the body's stream threw, as one of our errors. */
  classify(error: unknown, what: string): BackupdError
}

/**
 * The bytes of an object, opened again at the offset reached when the connection breaks, the server goes silent, or the body ends
 * before its time. Never delivers fewer or more bytes than the object has without failing (`storage.incomplete`).
 */
export const readWithResume = async function* <Tag>({ key, offset = 0, length, retryFor, signal, log, tag: pinned, open, classify }: ResumeOptions<Tag>): AsyncGenerator<Uint8Array, void, undefined> {
  const what = `read of ${key}`
  const clock = retryClock({ retryFor, signal, log, what })
  const wanted = length === undefined ? Infinity : offset + length
  let position = offset
  // Known once the storage has told the size.
  let end: number | undefined
  let tag = pinned
  const silent = (): Error => storageError('storage.timeout', `${what}: nothing came for ${silence.limit / 1000} s`)
  for (;;) {
    throwIfAborted(signal)
    const attempt = linkedAbort(signal)
    const wait = patience({ signal, ms: silence.limit, timeout: silent })
    let iterator: AsyncIterator<Uint8Array> | undefined
    try {
      const range = { offset: position, end: end ?? (wanted === Infinity ? undefined : wanted) }
      const opened = await wait.for(open(range, tag, attempt.signal))
      end ??= Math.max(offset, Math.min(opened.size, wanted))
      tag ??= opened.tag
      iterator = opened.body[Symbol.asyncIterator]()
      while (position < end) {
        const next = await wait.for(iterator.next())
        if (next.done === true) throw storageError('storage.incomplete', `${what}: ended at byte ${position} of ${end}`)
        if (next.value.length === 0) continue
        if (position + next.value.length > end) throw storageError('storage.incomplete', `${what}: more bytes than the object has`)
        position += next.value.length
        clock.progress()
        yield next.value
      }
      // A connection can be used again only when the end of the body was seen; that the bytes are all there does not hang on it.
      await within(iterator.next(), { signal, ms: endsWithin }).catch(() => undefined)
      return
    } catch (error) {
      attempt.abort(error)
      await clock.failed(classify(error, what))
    } finally {
      wait.end()
      attempt.abort(new Error('the reader is done'))
      attempt.release()
      if (iterator !== undefined) closeIterator(iterator)
    }
  }
}
