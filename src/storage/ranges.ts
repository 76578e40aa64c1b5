import type { Readable } from 'node:stream'
import { storageError } from './failure.js'
import type { OpenRange, Range, ResumeOptions } from './resume.js'

/** What a service answered to a request for a range. */
export interface RangeAnswer {
  body: Readable
  /** The header of that name, where there is one. */
  contentRange: string | undefined
  /** Bytes of the body. */
  contentLength: number | undefined
  /** Which version of the object this is. */
  tag: string | undefined
}

export interface RangeService {
  /** Of the object, for messages. */
  name: string
  /** Size of the object, or undefined where there is none. */
  sizeOf(signal: AbortSignal): Promise<number | undefined>
  /** Asks for the range, of the version `tag` when it is given; undefined where the range starts at or after the end. `header` is that of the request, undefined for the whole object. */
  get(request: { range: Range; header: string | undefined; tag: string | undefined }, signal: AbortSignal): Promise<RangeAnswer | undefined>
}

/** Opens ranges of an object over HTTP, as `readWithResume` asks for them. A server that does not know ranges is noticed (`storage.unsupported`). */
export const openRanges = ({ name, sizeOf, get }: RangeService): ResumeOptions<string>['open'] => {
  const nothing = async (signal: AbortSignal): Promise<OpenRange<string>> => {
    const size = await sizeOf(signal)
    if (size === undefined) throw storageError('storage.not_found', `read of ${name}: there is no such object`)
    return { body: (async function* () {})(), size, tag: undefined }
  }
  return async (range, tag, signal) => {
    const { offset, end } = range
    if (end !== undefined && end <= offset) return nothing(signal)
    const header = offset === 0 && end === undefined ? undefined : `bytes=${offset}-${end === undefined ? '' : end - 1}`
    const answer = await get({ range, header, tag }, signal)
    if (answer === undefined) return nothing(signal)
    const { body, contentRange, contentLength = 0 } = answer
    // Whoever reads gets the error from the iterator; without a listener it would end the process when nobody does.
    body.on('error', () => undefined)
    signal.addEventListener('abort', () => body.destroy(), { once: true })
    // A server that ignores the range would have its first bytes taken for those in the middle.
    if (header !== undefined && contentRange?.startsWith(`bytes ${offset}-`) !== true) {
      body.destroy()
      throw storageError('storage.unsupported', `read of ${name}: the service does not know ranges`)
    }
    const total = /\/(\d+)$/.exec(contentRange ?? '')?.[1]
    return { body, size: total === undefined ? contentLength : Number(total), tag: answer.tag }
  }
}
