import { messageOf, throwIfAborted } from '../errors.js'
import { hasCode } from './failure.js'
import type { SweepReport } from './storage.js'

/** Something that was not finished: its key, for the report, and when it was last touched, where that is known. */
export interface Abandoned {
  key: string
  touchedAt: Date | undefined
}

export interface Abandonment<T> {
  olderThan: Date
  signal: AbortSignal
  /** Is added to. */
  report: SweepReport
  /** Asks when an entry that does not say so was last touched. */
  touched?(entry: T): Promise<Date | undefined>
  remove(entry: T): Promise<unknown>
}

/**
 * Removes what was last touched before `olderThan`, one after the other. What is gone meanwhile counts for nothing, what cannot be
 * removed remains, with the reason; only an abort ends it.
 */
export const sweepAbandoned = async <T extends Abandoned>(found: AsyncIterable<T>, { olderThan, signal, report, touched, remove }: Abandonment<T>): Promise<void> => {
  for await (const entry of found) {
    throwIfAborted(signal)
    const { key } = entry
    try {
      const touchedAt = entry.touchedAt ?? (await touched?.(entry))
      if (touchedAt === undefined) report.remaining.push({ key, reason: 'the server does not tell how old it is' })
      if (touchedAt === undefined || touchedAt >= olderThan) continue
      await remove(entry)
      report.removed.push(key)
    } catch (error) {
      throwIfAborted(signal)
      if (!hasCode(error, 'storage.not_found')) report.remaining.push({ key, reason: messageOf(error) })
    }
  }
}
