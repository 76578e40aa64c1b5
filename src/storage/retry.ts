import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import { sleep } from './wait.js'

export interface RetryOptions {
  /** How long after the first failure another attempt may still start, milliseconds. 0: one attempt. */
  retryFor: number
  signal: AbortSignal
  log: Log
  /** What is tried, for the log: `part 3 of a/b`. */
  what: string
}

/** Milliseconds: the first pause is below `first`, each next one below twice as much, none above `most`. */
export const backoff = { first: 250, most: 30_000 }

/** The pause before attempt `attempt` + 1: full jitter, at least what the server asked for. */
export const pauseAfter = (attempt: number, asked = 0, random = Math.random()): number =>
  Math.max(asked, Math.round(random * Math.min(backoff.most, backoff.first * 2 ** Math.min(attempt, 20))))

const askedFor = (error: BackupdError): number => {
  const asked = error.details?.['retryAfter']
  return typeof asked === 'number' ? asked : 0
}

/** Decides about one failure after another: waits before the next attempt, or throws the error when there is to be none. */
export interface RetryClock {
  /** Waits, or throws `error`. */
  failed(error: unknown): Promise<void>
  /** There was progress: the time starts again with the next failure. */
  progress(): void
}

/** The clock behind `retry`, for work that goes on where it stopped instead of starting again. */
export const retryClock = ({ retryFor, signal, log, what }: RetryOptions): RetryClock => {
  let attempt = 0
  let since: number | undefined
  return {
    progress: () => {
      attempt = 0
      since = undefined
    },
    failed: async (error) => {
      throwIfAborted(signal)
      if (!(error instanceof BackupdError) || !error.retryable) throw error
      const now = Date.now()
      since ??= now
      const pause = pauseAfter(attempt, askedFor(error))
      if (retryFor === 0 || now + pause > since + retryFor) throw error
      attempt += 1
      log.warn({ what, attempt, pause, code: error.code, error: messageOf(error) }, 'storage request failed, trying again')
      await sleep(pause, signal)
    },
  }
}

/**
 * Runs `action` until it succeeds, fails with an error that is not `retryable`, or `retryFor` has passed since its first failure.
 * Exponential backoff with full jitter; `Retry-After` is honoured. `action` throws BackupdErrors.
 */
export const retry = async <T>(action: (attempt: number) => Promise<T>, options: RetryOptions): Promise<T> => {
  const clock = retryClock(options)
  for (let attempt = 0; ; attempt += 1) {
    throwIfAborted(options.signal)
    try {
      return await action(attempt)
    } catch (error) {
      await clock.failed(error)
    }
  }
}
