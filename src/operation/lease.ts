import { setTimeout as wait } from 'node:timers/promises'
import { catalogReason } from '../catalog/failures.js'
import { BackupdError } from '../errors.js'
import type { Log } from '../log.js'

/** What the catalog says when a lease is renewed: still ours, ours but somebody asked to cancel, or somebody else's. */
export type LeaseAnswer = 'held' | 'cancel' | 'lost'

/** Renewals come often, because they also carry the progress that others follow. Milliseconds. */
const INTERVAL = 2_000

/** A lease that is renewed until `release`; `signal` aborts when it is lost, when cancelling is asked for, or with `outer`. */
export interface Lease {
  signal: AbortSignal
  /** Asks once more, right now; fails when the lease is not held. For the moment before something cannot be undone. */
  confirm(): Promise<void>
  release(): Promise<void>
}

const lost = (): BackupdError =>
  new BackupdError('lease.lost', 'this worker lost its lease: it did not renew it in time, and another one took over', { hint: 'The machine was overloaded, frozen, or cut off from the catalog.' })

/** Keeps the lease that `renew` renews. A catalog that cannot be reached for a while is waited for: until somebody else takes it, the lease can be had back. */
export const keepLease = (renew: () => Promise<LeaseAnswer>, outer: AbortSignal, log: Log): Lease => {
  const own = new AbortController()
  const stop = new AbortController()
  const follow = (): void => own.abort(outer.reason)
  outer.addEventListener('abort', follow)
  if (outer.aborted) follow()

  const ask = async (): Promise<void> => {
    const answer = await renew()
    if (answer === 'lost') own.abort(lost())
    if (answer === 'cancel') own.abort(new BackupdError('cancelled', 'cancelled on request'))
  }
  const loop = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      try {
        await wait(INTERVAL, undefined, { signal: stop.signal })
      } catch {
        return
      }
      // After an abort the lease is still renewed, so that cleaning up is not disturbed, unless it is lost.
      await ask().catch((error: unknown) => log.warn({ error: catalogReason(error) }, 'renewing the lease failed, trying again'))
    }
  }
  const running = loop()
  return {
    signal: own.signal,
    confirm: async () => {
      await ask()
      if (own.signal.aborted) throw own.signal.reason
    },
    release: async () => {
      stop.abort()
      outer.removeEventListener('abort', follow)
      await running
    },
  }
}
