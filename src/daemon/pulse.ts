import { catalogReason, isUnreachable } from '../catalog/failures.js'
import type { Log } from '../log.js'

/** How the daemon is, as far as it can tell by itself. Times are those of `performance.now()`. */
export interface Pulse {
  /** The scheduler's clock ticked, whether or not the catalog answered. */
  ticked(): void
  /** The catalog answered. */
  answered(): void
  /** The catalog did not answer, or not as it should. True when that is news. */
  failed(error: unknown): boolean
  readonly lastTick: number
  readonly lastAnswer: number | undefined
  readonly catalog: 'waiting' | 'reachable' | 'away' | 'failing'
  /** Since when the catalog is as it is. */
  readonly since: number
  /** What was wrong last, without secrets. */
  readonly error: string | undefined
  draining: boolean
}

/** Repeated complaints about the same thing come this far apart. Milliseconds. */
const REPEAT = 300_000

/** Keeps the pulse and tells the log what changes. */
export const createPulse = (log: Log): Pulse => {
  let lastTick = performance.now()
  let lastAnswer: number | undefined
  let catalog: Pulse['catalog'] = 'waiting'
  let since = performance.now()
  let error: string | undefined
  let told = -Infinity

  const become = (state: Pulse['catalog']): boolean => {
    if (catalog === state) return false
    catalog = state
    since = performance.now()
    return true
  }
  return {
    draining: false,
    ticked: () => {
      lastTick = performance.now()
    },
    answered: () => {
      lastAnswer = performance.now()
      const was = catalog
      const away = Math.round((lastAnswer - since) / 1000)
      if (!become('reachable')) return
      error = undefined
      if (was !== 'waiting') log.info({ seconds: away }, 'the catalog is back')
    },
    failed: (cause) => {
      const away = isUnreachable(cause)
      error = catalogReason(cause)
      const news = become(lastAnswer === undefined ? 'waiting' : away ? 'away' : 'failing')
      if (news || performance.now() - told > REPEAT) {
        told = performance.now()
        if (away) log.warn({ error }, 'the catalog cannot be reached, trying again')
        else log.error({ error }, 'the catalog does not answer as it should, trying again')
      }
      return news
    },
    get lastTick() {
      return lastTick
    },
    get lastAnswer() {
      return lastAnswer
    },
    get catalog() {
      return catalog
    },
    get since() {
      return since
    },
    get error() {
      return error
    },
  }
}
