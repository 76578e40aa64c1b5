import { listAudit } from '../audit/audit.js'
import { databaseTime } from '../catalog/attention.js'
import { exclusively } from '../catalog/exclusive.js'
import { catalogReason, isUnreachable } from '../catalog/failures.js'
import { listStorages, type StorageRow } from '../catalog/storages.js'
import { BackupdError } from '../errors.js'
import type { Environment } from '../operation/environment.js'
import { applyRetention, type CleanupReport } from '../operation/expire.js'
import { sweepStorage } from '../operation/sweep.js'

/** A day, and how long after a failure it is tried again. Milliseconds. */
const DAILY = 86_400_000
const AFTER_FAILURE = 3_600_000
/** A storage that hangs must not keep the daily work from being done for ever. Milliseconds. */
const LONGEST = 6 * 3_600_000
/** What was touched in the last day is left alone. Hours. */
const SWEEP_OLDER_THAN = 24

/** What is done once a day over all daemons. */
export interface Upkeep {
  /** Does what is due. */
  run(): Promise<void>
  /** Ends what is under way; resolves when it has ended. */
  stop(): Promise<void>
}

/** Whether the daemons have not done this within a day, by the catalog's clock and its audit trail: a daemon that was down makes up for it. */
const isDue = async ({ catalog, actor }: Environment, event: string, storage?: number): Promise<boolean> => {
  const [last] = await listAudit(catalog.db, { type: event, username: actor.username, limit: 1, ...(storage === undefined ? {} : { resource: { type: 'storage', id: String(storage) } }) })
  if (last === undefined) return true
  const age = (await databaseTime(catalog.db)).getTime() - last.created_at.getTime()
  // An entry from the future: the clock was set back since.
  return age < -AFTER_FAILURE || age >= (last.status === 'failure' ? AFTER_FAILURE : DAILY)
}

/** Retention and sweeps, for the daemon of `outer`. Nothing of it touches a backup under way, and its failures are only logged. */
export const createUpkeep = (outer: Environment): Upkeep => {
  const stopped = new AbortController()
  let running: Promise<void> = Promise.resolve()

  const attempt = async (what: string, storage: string | undefined, work: () => Promise<void>): Promise<void> => {
    if (stopped.signal.aborted) return
    try {
      await work()
    } catch (error) {
      if (isUnreachable(error)) throw error
      const facts = { ...(storage === undefined ? {} : { storage }), error: catalogReason(error) }
      if (error instanceof BackupdError && error.code === 'retention.busy') outer.log.debug(facts, 'another process applies retention')
      else outer.log.warn(facts, `${what} did not come to its end; it is tried again`)
    }
  }

  /** Does what is due, unless another daemon is doing it, or has done it meanwhile. */
  const once = async (env: Environment, event: string, storage: number | undefined, work: () => Promise<void>): Promise<void> => {
    if (!(await isDue(env, event, storage))) return
    await exclusively(env.catalog.url, `daily ${event} ${storage ?? ''}`, async () => {
      if (await isDue(env, event, storage)) await work()
    })
  }

  const retain = (env: Environment): Promise<void> => once(env, 'retention.applied', undefined, async () => {
    const reports = await applyRetention(env, {}, 'schedule')
    const sum = (of: (report: CleanupReport) => number): number => reports.reduce((total, report) => total + of(report), 0)
    env.log.info({ deleted: sum(({ deleted }) => deleted.length), remaining: sum(({ remaining }) => remaining.length), bytes: sum(({ freed }) => freed) }, 'retention applied')
  })

  const sweep = (env: Environment, row: StorageRow): Promise<void> => once(env, 'storage.swept', row.id, async () => {
    const { folders, uploads } = await sweepStorage(env, row, { olderThan: SWEEP_OLDER_THAN, dryRun: false })
    if (folders.length + uploads.length > 0) env.log.info({ storage: row.name, folders: folders.length, uploads: uploads.length }, 'what no backup is was removed')
  })

  const round = async (): Promise<void> => {
    const env: Environment = { ...outer, signal: AbortSignal.any([outer.signal, stopped.signal, AbortSignal.timeout(LONGEST)]) }
    await attempt('retention', undefined, () => retain(env))
    for (const row of await listStorages(env.catalog.db)) {
      if (row.is_active) await attempt('the sweep of a storage', row.name, () => sweep(env, row))
    }
  }

  return {
    run: () => (running = running.catch(() => undefined).then(round)),
    stop: async () => {
      stopped.abort()
      await running.catch(() => undefined)
    },
  }
}
