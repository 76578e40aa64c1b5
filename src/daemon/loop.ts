import { lookAround, type Attention } from '../catalog/attention.js'
import type { Work as Notification } from '../catalog/notifications.js'
import { catalogReason } from '../catalog/failures.js'
import { BackupdError } from '../errors.js'
import type { Environment } from '../operation/environment.js'
import type { DaemonOptions } from './options.js'
import type { Presence } from './presence.js'
import type { Pulse } from './pulse.js'
import type { Reaper } from './reap.js'
import type { Restores } from './restores.js'
import { BATCH, fireDue } from './schedule.js'
import type { Work } from './work.js'

/** A look that takes longer says that the catalog does not answer. Milliseconds. */
const HUNG = 20_000
/** Between two looks while the catalog is away, milliseconds; the driver waits longer from time to time. */
const AWAY = 1_000
/** When there is very much to hear of, looks are at least this far apart and at most twice as far, milliseconds: another daemon looks meanwhile. */
const SHORTEST_GAP = 100
/** More batches than this in one round are left to the next. */
const MOST_BATCHES = 100

export interface Loop {
  /** Looks at the catalog and does what there is to do; while a look is under way, another follows it. */
  look(): void
  /** Called every tick. */
  tick(): void
  /** Something was said through the catalog. */
  heard(notification: Notification): void
  /** Only says that this process is alive from now on, and follows requests to cancel. */
  stop(): Promise<void>
}

interface Parts {
  env: Environment
  options: Pick<DaemonOptions, 'tick'>
  work: Work
  restores: Restores
  reaper: Reaper
  presence: Presence
  pulse: Pulse
  /** What others may see of this daemon. */
  details(): unknown
}

export const createLoop = ({ env, options, work, restores, reaper, presence, pulse, details }: Parts): Loop => {
  let stopped = false
  let again = false
  let begun = -Infinity
  let gap = 0
  let looking: Promise<void> | undefined
  let alarm: { at: number; timer: NodeJS.Timeout } | undefined

  const wakeIn = (delay: number): void => {
    const at = Math.max(performance.now() + delay, begun + gap)
    if (stopped || (alarm !== undefined && alarm.at <= at)) return
    clearTimeout(alarm?.timer)
    alarm = {
      at,
      timer: setTimeout(() => {
        alarm = undefined
        look()
      }, at - performance.now()),
    }
  }

  const fire = async ({ schedules }: Attention): Promise<boolean> => {
    let fired = false
    for (let batch = 0; schedules && !stopped && batch < MOST_BATCHES; batch += 1) {
      const done = await fireDue(env)
      fired ||= done.fired > 0
      if (done.seen < BATCH) break
    }
    return fired
  }

  const round = async (): Promise<void> => {
    await presence.beat(stopped ? 'draining' : 'running', details())
    const seen = await lookAround(env.catalog.db)
    pulse.answered()
    if (stopped) return
    const fired = await fire(seen)
    await reaper.reap(seen)
    if (fired || seen.pending) await work.fill()
    if (seen.recoveries) await restores.fill()
    // What is due before the next tick is not kept waiting for it.
    if (fired || seen.schedules) again = true
    else if (seen.nextIn !== null && seen.nextIn < options.tick * 1000) wakeIn(Math.max(5, Math.ceil(seen.nextIn) + 2))
  }

  const rounds = async (): Promise<void> => {
    do {
      again = false
      begun = performance.now()
      gap = SHORTEST_GAP * (1 + Math.random())
      try {
        await round()
      } catch (error) {
        if (pulse.failed(error)) reaper.catalogWasAway()
        wakeIn(AWAY)
        return
      }
    } while (again)
  }

  const look = (): void => {
    again = true
    looking ??= rounds().finally(() => (looking = undefined))
  }

  return {
    look,
    tick: () => {
      if (looking !== undefined && performance.now() - begun > HUNG) {
        if (pulse.failed(new BackupdError('catalog.unreachable', `the catalog has not answered for ${Math.round((performance.now() - begun) / 1000)} s`))) reaper.catalogWasAway()
      }
      look()
    },
    heard: ({ kind, id }) => {
      if (kind === 'cancel') void work.cancelRequested(id).catch((error: unknown) => env.log.debug({ error: catalogReason(error) }, 'a request to cancel is found at the next renewal'))
      // Not all daemons at once, and those first that have nothing to do.
      else wakeIn(10 + Math.random() * 20 + 40 * work.running.size)
    },
    stop: async () => {
      stopped = true
      clearTimeout(alarm?.timer)
      await looking
    },
  }
}
