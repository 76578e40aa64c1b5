import { randomBytes } from 'node:crypto'
import { writeAudit } from '../audit/audit.js'
import { beginCleanup, countDeletion, endCleanup, type Cleanup } from '../catalog/cleanups.js'
import { exclusively } from '../catalog/exclusive.js'
import { removeExecution } from '../catalog/executions.js'
import { markExpiring, unmarkExpiring, type Hindrance } from '../catalog/expiry.js'
import { isCatalogError, isUnreachable } from '../catalog/failures.js'
import { placeholderPolicy } from '../catalog/policies.js'
import type { CleanupStatus, Trigger } from '../catalog/statuses.js'
import { refreshStorageTotals } from '../catalog/storages.js'
import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import type { Storage } from '../storage/storage.js'
import type { Environment } from './environment.js'
import { removeObjects } from './expire-objects.js'
import { planRetention, type Planned, type RetentionScope } from './retention-plan.js'
import { openStorageRow } from './sources.js'

/** What was deleted under one policy in one storage. */
export interface CleanupReport {
  cleanup_id: string
  storage: string
  /** Null: no policy is about these backups. */
  policy: string | null
  status: CleanupStatus
  evaluated: number
  deleted: string[]
  /** Bytes. */
  freed: number
  /** What could not be deleted, and is tried again next time. */
  remaining: { id: number; backup_id: string; reason: string }[]
  error: string | null
}

/** A decision is looked at again when it is older than that, because backups fail and are found damaged meanwhile. Milliseconds. */
const FRESH = 10_000
/** After so many backups in a row of which nothing could be removed, a storage is left alone until the next time. */
const MOST_FAILURES = 3

const hindrances: Record<Hindrance, string> = {
  gone: 'it is gone', pinned: 'it was pinned meanwhile', live: 'it is being worked on', verified: 'it is being read back', restored: 'a restore reads it', copied: 'it is being copied',
}

/** One cleanup under way. */
interface Run {
  env: Environment
  storage: Storage
  cleanup: Cleanup
  trigger: Trigger
  report: CleanupReport
}

/** The record, the totals, the history and the audit trail, all or nothing. */
const removeRecord = ({ env, cleanup, trigger, report }: Run, { candidate, reasons, schedule, storage }: Planned, freed: number): Promise<boolean> =>
  env.catalog.db.transaction(async (tx) => {
    const row = await removeExecution(tx, candidate.id)
    if (row === undefined) return false
    await refreshStorageTotals(tx, row.storage_backend_id)
    await countDeletion(tx, cleanup.id, { backup_id: row.backup_id, freed })
    await writeAudit(tx, {
      event_type: 'backup.expired', event_category: 'backup', action: 'delete', actor: env.actor, risk_level: 'medium',
      resource: { type: 'backup_execution', id: row.id, name: row.backup_id }, correlation_id: row.backup_id,
      before: { status: row.status, started_at: row.started_at, schedule, storage: storage.name, storage_location: row.storage_location, checksum: row.checksum, copy_of: row.copy_of },
      event_data: { reasons: reasons.map(({ text }) => text), bytes: freed, cleanup_id: report.cleanup_id, policy: report.policy, triggered_by: trigger },
    })
    return true
  })

/** Deletes one backup: marked first, then its objects, then its record. Gives why something of it is left; undefined when nothing is. */
const expire = async (run: Run, planned: Planned): Promise<string | undefined> => {
  const { env, storage, report } = run
  const { db } = env.catalog
  const { id, backup_id } = planned.candidate
  const marked = await markExpiring(db, id)
  if ('hindrance' in marked) return marked.hindrance === 'gone' ? undefined : hindrances[marked.hindrance]
  const removal = await removeObjects(env, storage, marked.row)
  if (removal.problems.length > 0) {
    if (removal.untouched && marked.row.expiring_at === null) await unmarkExpiring(db, id)
    return removal.problems.join('; ')
  }
  if (await removeRecord(run, planned, removal.freed)) {
    report.deleted.push(backup_id)
    report.freed += removal.freed
    env.log.info({ execution: id, backup_id, bytes: removal.freed }, 'backup deleted')
  }
  return undefined
}

/** Decisions that are never old: made anew when they are. */
const freshDecisions = (env: Environment, scope: RetentionScope) => {
  let plan = new Map<number, Planned>()
  let madeAt = -Infinity
  return async (id: number): Promise<Planned | undefined> => {
    if (performance.now() - madeAt > FRESH) {
      plan = new Map((await planRetention(env.catalog.db, scope)).entries.map((entry) => [entry.candidate.id, entry]))
      madeAt = performance.now()
    }
    return plan.get(id)
  }
}

const deleteAll = async (run: Run, doomed: readonly Planned[], fresh: ReturnType<typeof freshDecisions>): Promise<void> => {
  const { env, report } = run
  let failures = 0
  for (const { candidate: { id, backup_id } } of doomed) {
    throwIfAborted(env.signal)
    const leave = (reason: string): void => void report.remaining.push({ id, backup_id, reason })
    if (failures >= MOST_FAILURES) {
      leave('not tried: the storage refused those before it')
      continue
    }
    const planned = await fresh(id)
    if (planned === undefined || planned.keep) continue
    try {
      const problem = await expire(run, planned)
      failures = problem === undefined ? 0 : failures + 1
      if (problem !== undefined) leave(problem)
    } catch (error) {
      // What is wrong with the catalog, or with us, is not this backup's.
      if (env.signal.aborted || isCatalogError(error) || isUnreachable(error)) throw error
      failures += 1
      leave(messageOf(error))
    }
  }
}

interface Batch {
  entries: Planned[]
  trigger: Trigger
  fresh: ReturnType<typeof freshDecisions>
}

/** Everything of one storage under one policy, with its row in the history. */
const cleanUp = async (env: Environment, { entries, trigger, fresh }: Batch): Promise<CleanupReport | undefined> => {
  const { db } = env.catalog
  const [first] = entries
  if (first === undefined) return undefined
  const cleanup = await beginCleanup(db, {
    cleanup_id: `cleanup-${new Date().toISOString().replace(/[-:]|\.\d+/g, '')}-${randomBytes(4).toString('hex')}`,
    retention_policy_id: first.policy ?? (await placeholderPolicy(db, first.storage)).id,
    storage_backend_id: first.storage.id, triggered_by: trigger, backups_evaluated: entries.length,
  })
  const report: CleanupReport = {
    cleanup_id: cleanup.cleanup_id, storage: first.storage.name, policy: first.policyName, status: 'completed', evaluated: entries.length, deleted: [], freed: 0, remaining: [], error: null,
  }
  const doomed = entries.filter(({ keep }) => !keep)
  let failure: unknown
  if (doomed.length > 0) {
    let storage: Storage | undefined
    try {
      storage = await openStorageRow(env, first.storage)
      await deleteAll({ env, storage, cleanup, trigger, report }, doomed, fresh)
    } catch (error) {
      failure = error
      report.error = messageOf(error)
    } finally {
      await storage?.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
    }
  }
  report.status = failure !== undefined ? (report.deleted.length > 0 ? 'partial' : 'failed') : report.remaining.length > 0 ? 'partial' : 'completed'
  report.error ??= report.remaining.length > 0 ? `${report.remaining.length} of ${doomed.length} could not be deleted` : null
  await endCleanup(db, cleanup.id, { status: report.status, error: report.error, warnings: report.remaining.map(({ backup_id, reason }) => `${backup_id}: ${reason}`) })
  if (failure !== undefined && (env.signal.aborted || isCatalogError(failure) || isUnreachable(failure))) throw failure
  for (const { backup_id, reason } of report.remaining) env.log.warn({ backup_id, storage: report.storage, reason }, 'a backup could not be deleted')
  if (failure !== undefined) env.log.warn({ storage: report.storage, error: report.error }, 'backups could not be deleted')
  return report
}

const batchesOf = (entries: readonly Planned[]): Planned[][] => {
  const batches = new Map<string, Planned[]>()
  for (const entry of entries) {
    const key = `${entry.storage.id} ${entry.policy ?? ''}`
    const batch = batches.get(key)
    if (batch === undefined) batches.set(key, [entry])
    else batch.push(entry)
  }
  return [...batches.values()]
}

const record = (env: Environment, trigger: Trigger, reports: readonly CleanupReport[], failure?: unknown): Promise<unknown> => {
  const worst = failure !== undefined ? 'failure' : reports.some(({ status }) => status !== 'completed') ? 'warning' : 'success'
  return writeAudit(env.catalog.db, {
    event_type: 'retention.applied', event_category: 'backup', action: 'execute', status: worst, actor: env.actor,
    event_data: {
      triggered_by: trigger, deleted: reports.reduce((sum, { deleted }) => sum + deleted.length, 0), remaining: reports.reduce((sum, { remaining }) => sum + remaining.length, 0),
      bytes: reports.reduce((sum, { freed }) => sum + freed, 0), cleanups: reports.map(({ cleanup_id }) => cleanup_id), ...(failure === undefined ? {} : { message: messageOf(failure) }),
    },
  })
}

const applyAll = async (env: Environment, scope: RetentionScope, trigger: Trigger): Promise<CleanupReport[]> => {
  const reports: CleanupReport[] = []
  try {
    const { entries } = await planRetention(env.catalog.db, scope)
    const fresh = freshDecisions(env, scope)
    for (const batch of batchesOf(entries)) {
      const report = await cleanUp(env, { entries: batch, trigger, fresh })
      if (report !== undefined) reports.push(report)
    }
  } catch (error) {
    await record(env, trigger, reports, error).catch((secondary: unknown) => env.log.warn({ error: messageOf(secondary) }, 'that retention failed is not on record'))
    throw error
  }
  await record(env, trigger, reports)
  return reports
}

/**
 * Deletes what no rule keeps, in every storage, one at a time over all processes. What cannot be deleted is reported, and tried again
 * next time. Fails with `retention.busy` (retryable) while another process does it, `policy.not_found` or `storage.unknown`.
 */
export const applyRetention = async (env: Environment, scope: RetentionScope, trigger: Trigger): Promise<CleanupReport[]> => {
  const done = await exclusively(env.catalog.url, 'retention', () => applyAll(env, scope, trigger))
  if (done !== undefined) return done.result
  throw new BackupdError('retention.busy', 'another process is applying retention', { retryable: true, hint: 'Wait until it has ended; "backupd retention plan" shows what is left to do.' })
}
