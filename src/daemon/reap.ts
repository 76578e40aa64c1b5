import { writeAudit } from '../audit/audit.js'
import type { Attention } from '../catalog/attention.js'
import { listLeftovers, updateExecution, type Execution, type NewExecution } from '../catalog/executions.js'
import { catalogReason } from '../catalog/failures.js'
import { jsonObject } from '../catalog/json.js'
import { notifyWork } from '../catalog/notifications.js'
import { endExpired, listExpired } from '../catalog/queue.js'
import { failExpiredRecovery, listExpiredRecoveries } from '../catalog/recoveries.js'
import { lockSchedule } from '../catalog/schedules.js'
import { withWarnings } from '../catalog/warnings.js'
import { messageOf } from '../errors.js'
import { discardStored } from '../operation/discard-stored.js'
import { afterEnd } from '../operation/ending.js'
import type { Environment } from '../operation/environment.js'
import { isCopy } from '../operation/folder.js'
import { openStorageRow, storageRow } from '../operation/sources.js'
import type { DaemonOptions } from './options.js'
import { LOST } from './retry.js'

/** Looks further apart than this say nothing about the time between them: this process stood still itself. */
const BLIND = 20_000

/** Takes away the work of workers that died or froze. */
export interface Reaper {
  /** Ends what has expired for long enough. */
  reap(seen: Attention): Promise<void>
  /** Removes what such workers have stored; again a while later, because a frozen one may have written more. */
  sweepLeftovers(): Promise<void>
  /** The catalog was away: nobody could renew a lease. */
  catalogWasAway(): void
}

interface Sighting {
  first: number
  last: number
}

const lostMessage = (worker: string | null, expired: Date | null): string =>
  `the daemon that ran it is gone: ${worker ?? 'it'} has not renewed its lease, which ended at ${expired?.toISOString() ?? 'some time'}`

const reason = (execution: Execution): Partial<NewExecution> => ({
  error_message: lostMessage(execution.worker_id, execution.lease_expires_at),
  error_details: {
    code: LOST, kind: 'failed', retryable: true, stage: jsonObject(execution.progress)['stage'] ?? 'prepare',
    worker: execution.worker_id, lease_expires_at: execution.lease_expires_at,
    hint: 'Its process was killed, its machine stopped, or it was cut off from the catalog.',
  },
  verification_status: 'skipped',
  // Until its objects are known to be gone.
  execution_metadata: { ...jsonObject(execution.execution_metadata), leftovers: true },
})

const interrupted = (): Partial<NewExecution> => ({
  verification_status: 'pending',
  warnings: withWarnings(['the daemon that verified this backup is gone: it is stored, but was not verified to the end']),
})

/** Ends one expired execution: as failed, or, when only its verification was cut, as the completed backup that it is. */
const end = (env: Environment, execution: Execution): Promise<Execution | undefined> =>
  env.catalog.db.transaction(async (tx) => {
    const stored = execution.status === 'verifying'
    if (execution.schedule_id !== null) await lockSchedule(tx, execution.schedule_id)
    const row = await endExpired(tx, execution.id, {
      from: stored ? 'verifying' : 'running', to: stored ? 'completed' : 'failed', set: stored ? interrupted() : reason(execution),
    })
    if (row === undefined) return undefined
    await afterEnd(env, tx, row)
    await writeAudit(tx, {
      event_type: `${isCopy(row) ? 'copy' : 'backup'}.${stored ? 'completed' : 'failed'}`, event_category: 'backup', action: 'execute', status: stored ? 'warning' : 'failure',
      actor: env.actor, resource: { type: 'backup_execution', id: row.id, name: row.backup_id },
      event_data: { schedule_id: row.schedule_id, triggered_by: row.triggered_by, code: LOST, worker: row.worker_id }, correlation_id: row.backup_id,
    })
    return row
  })

const discard = async (env: Environment, execution: Execution): Promise<boolean> => {
  // A copy notes its place before it writes; without one, what is in a folder of that name is not of this run.
  if (isCopy(execution) && execution.storage_location === null) return true
  try {
    const storage = await openStorageRow(env, await storageRow(env, execution.storage_backend_id))
    try {
      return (await discardStored(env, execution, storage)).length === 0
    } finally {
      await storage.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
    }
  } catch (error) {
    env.log.warn({ execution: execution.id, error: catalogReason(error) }, 'the objects of a lost backup could not be removed yet')
    return false
  }
}

export interface ReaperOptions extends Pick<DaemonOptions, 'reapGrace' | 'reapGraceAfterOutage'> {
  /** Whether this process works on it, and so knows better whether it lives. */
  own(kind: 'execution' | 'recovery', id: number): boolean
  onLost(execution: Execution): void
}

/** A reaper for the daemon of `env`. */
export const createReaper = (env: Environment, options: ReaperOptions): Reaper => {
  const sightings = new Map<string, Sighting>()
  let awayUntil = -Infinity

  /** Whether `key` has been seen expired, without a gap, for long enough. */
  const longEnough = (key: string, grace: number): boolean => {
    const now = performance.now()
    const known = sightings.get(key)
    const sighting = known === undefined || now - known.last > BLIND ? { first: now, last: now } : { ...known, last: now }
    sightings.set(key, sighting)
    return now - sighting.first >= grace
  }
  const forget = (): void => {
    for (const [key, { last }] of sightings) if (performance.now() - last > BLIND) sightings.delete(key)
  }

  const reapExecution = async (execution: Execution, grace: number): Promise<void> => {
    if (options.own('execution', execution.id) || !longEnough(`execution ${execution.id} ${execution.worker_id}`, grace)) return
    const row = await end(env, execution)
    if (row === undefined) return
    options.onLost(row)
    const facts = { execution: row.id, backup_id: row.backup_id, worker: row.worker_id }
    if (row.status !== 'failed') return env.log.warn(facts, 'the daemon that verified a backup is gone; the backup itself is stored')
    env.log.error(facts, 'the daemon that ran a backup is gone; the backup is marked as failed')
    // Not waited for: a storage that does not answer must not keep the scheduler waiting, and the sweep comes back to it.
    void discard(env, row)
  }

  return {
    reap: async ({ expired, expiredRecoveries, serverUptime }) => {
      const late = performance.now() < awayUntil || serverUptime < options.reapGraceAfterOutage
      const grace = late ? options.reapGraceAfterOutage : options.reapGrace
      if (expired) for (const execution of await listExpired(env.catalog.db)) await reapExecution(execution, grace)
      for (const recovery of expiredRecoveries ? await listExpiredRecoveries(env.catalog.db) : []) {
        if (options.own('recovery', recovery.id) || !longEnough(`recovery ${recovery.id} ${recovery.worker_id}`, grace)) continue
        const row = await failExpiredRecovery(env.catalog.db, recovery.id, {
          error_message: lostMessage(recovery.worker_id, recovery.lease_expires_at),
          error_details: { code: LOST, kind: 'failed', retryable: true, worker: recovery.worker_id },
        })
        if (row === undefined) continue
        env.log.error({ recovery: row.id, worker: recovery.worker_id }, 'the process that ran a restore is gone; the restore is marked as failed')
        await notifyWork(env.catalog.db, { kind: 'recovery', id: row.id })
      }
      forget()
    },
    sweepLeftovers: async () => {
      for (const { execution, old } of await listLeftovers(env.catalog.db)) {
        if (!(await discard(env, execution)) || !old) continue
        const { leftovers: _gone, ...metadata } = jsonObject(execution.execution_metadata)
        await updateExecution(env.catalog.db, execution.id, { execution_metadata: metadata })
      }
    },
    catalogWasAway: () => {
      awayUntil = performance.now() + options.reapGraceAfterOutage
    },
  }
}
