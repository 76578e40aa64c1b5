import { setMaxListeners } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { abortError } from '../errors.js'

export interface WithinOptions {
  signal?: AbortSignal
  /** Milliseconds; without it there is no limit. */
  ms?: number
  /** What a run-out of time is thrown as. Needed with `ms`. */
  timeout?: () => Error
}

/**
 * `promise`, unless `signal` aborts or `ms` milliseconds pass first. The work behind the promise goes on, so abort that too;
 * its late failure is swallowed.
 */
export const within = <T>(promise: Promise<T>, { signal, ms, timeout }: WithinOptions): Promise<T> =>
  new Promise<T>((resolve, reject) => {
    // Every request in flight listens; Node takes more than ten for a leak.
    if (signal !== undefined) setMaxListeners(0, signal)
    const onAbort = (): void => settle(() => reject(abortError(signal as AbortSignal)))
    const timer = ms === undefined ? undefined : setTimeout(() => settle(() => reject(timeout?.() ?? new Error('timed out'))), ms)
    const settle = (finish: () => void): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      finish()
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    promise.then((value) => settle(() => resolve(value)), (error: unknown) => settle(() => reject(error as Error)))
    if (signal?.aborted) onAbort()
  })

/** `within` for one promise after another, as of a stream: one listener and one timer serve them all. */
export interface Patience {
  /** `promise`, unless the signal aborts or the time passes first, counted anew for each. One at a time. */
  for<T>(promise: Promise<T>): Promise<T>
  /** Must be called, or the timer and the listener stay. */
  end(): void
}

export const patience = ({ signal, ms, timeout }: WithinOptions): Patience => {
  let fail: ((error: Error) => void) | undefined
  const timer = ms === undefined ? undefined : setTimeout(() => fail?.(timeout?.() ?? new Error('timed out')), ms)
  const onAbort = (): void => fail?.(abortError(signal as AbortSignal))
  if (signal !== undefined) setMaxListeners(0, signal)
  signal?.addEventListener('abort', onAbort, { once: true })
  return {
    for: (promise) => new Promise((resolve, reject) => {
      fail = reject
      timer?.refresh()
      promise.then((value) => {
        fail = undefined
        resolve(value)
      }, reject)
      if (signal?.aborted) onAbort()
    }),
    end: () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    },
  }
}

/** Waits `ms` milliseconds; throws the signal's reason when it aborts before. */
export const sleep = async (ms: number, signal: AbortSignal): Promise<void> => {
  try {
    await delay(ms, undefined, { signal })
  } catch {
    throw abortError(signal)
  }
}

/** An abort of our own that also follows `signal`. `release` must be called, or a long-lived signal collects listeners. */
export const linkedAbort = (signal: AbortSignal): { signal: AbortSignal; abort(reason: unknown): void; release(): void } => {
  const controller = new AbortController()
  setMaxListeners(0, controller.signal)
  const follow = (): void => controller.abort(signal.reason)
  if (signal.aborted) follow()
  else signal.addEventListener('abort', follow, { once: true })
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    release: () => signal.removeEventListener('abort', follow),
  }
}

/** Tells an iterator that nobody reads on. Not waited for: a generator that is stuck in a read answers only when that ends. */
export const closeIterator = (iterator: AsyncIterator<unknown>): void => {
  void iterator.return?.().then(undefined, () => undefined)
}
