import { throwIfAborted, type BackupdError } from '../errors.js'
import type { Log } from '../log.js'
import { hasCode } from './failure.js'
import { retry } from './retry.js'

/** One request, or a few that belong together, tried again as long as that may help. Fails with our errors only. `what` names it in them. */
export type Ask = <T>(what: string, signal: AbortSignal, action: () => Promise<T>) => Promise<T>

/** An `Ask` for a client whose errors `classify` makes ours. */
export const asker = (classify: (error: unknown, what: string) => BackupdError, { retryFor, log }: { retryFor: number; log: Log }): Ask =>
  (what, signal, action) => retry(async () => {
    try {
      return await action()
    } catch (error) {
      throwIfAborted(signal)
      throw classify(error, what)
    }
  }, { retryFor, signal, log, what })

/** What was asked for, or undefined where the storage has nothing of that name (`storage.not_found`). */
export const ifThere = async <T>(answer: Promise<T>): Promise<T | undefined> => {
  try {
    return await answer
  } catch (error) {
    if (hasCode(error, 'storage.not_found')) return undefined
    throw error
  }
}

/** The items of a listing that comes in pages. `page` gets what the page before said of the next one, first nothing, and gives `next` as long as there is one. */
export const allPages = async function* <T, Mark>(page: (mark: Mark | undefined) => Promise<{ items: readonly T[]; next: Mark | undefined }>): AsyncGenerator<T, void, undefined> {
  let mark: Mark | undefined
  do {
    const { items, next } = await page(mark)
    yield* items
    mark = next
  } while (mark !== undefined)
}
