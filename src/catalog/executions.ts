import { and, desc, eq, inArray, isNotNull, isNull, lte, sql } from './drizzle.js'
import { BackupdError } from '../errors.js'
import type { Db } from './connect.js'
import { latestFound, ofScheduleNamed } from './found.js'
import { backupExecutions, backupSchedules, recoveryExecutions } from './schema.js'
import { clock } from './leases.js'
import { goodExecutionStatuses, liveExecutionStatuses, type ExecutionStatus } from './statuses.js'

export type Execution = typeof backupExecutions.$inferSelect
export type NewExecution = typeof backupExecutions.$inferInsert

const newestFirst = [desc(backupExecutions.started_at), desc(backupExecutions.id)]

export const executionById = async (db: Db, id: number): Promise<Execution | undefined> =>
  (await db.select().from(backupExecutions).where(eq(backupExecutions.id, id)))[0]

const latestOfRow = async (db: Db, schedule: string, anyStatus: boolean): Promise<Execution | undefined> =>
  (await db.select({ execution: backupExecutions }).from(backupExecutions)
    .innerJoin(backupSchedules, eq(backupSchedules.id, backupExecutions.schedule_id))
    .where(and(
      eq(backupSchedules.name, schedule),
      isNull(backupExecutions.copy_of),
      anyStatus ? undefined : and(inArray(backupExecutions.status, [...goodExecutionStatuses]), isNull(backupExecutions.expiring_at)),
    ))
    .orderBy(...newestFirst).limit(1))[0]?.execution

/**
 * The newest execution of a schedule that is a good backup, or with `anyStatus` the newest of all. Backups that a rebuild of the catalog
 * found count by the name in their manifest, whether there is such a schedule or not.
 */
export const latestExecution = async (db: Db, schedule: string, { anyStatus = false } = {}): Promise<Execution | undefined> => {
  const found = await latestFound(db, schedule)
  const own = await latestOfRow(db, schedule, anyStatus)
  return own === undefined || (found !== undefined && found.started_at > own.started_at) ? found : own
}

/** The execution that `ref` means: a number, a backup_id, or `latest:SCHEDULE`. */
export const findExecution = async (db: Db, ref: string | number, options: { anyStatus?: boolean } = {}): Promise<Execution | undefined> => {
  const text = String(ref)
  if (text.startsWith('latest:')) return latestExecution(db, text.slice('latest:'.length), options)
  // Beyond the column's range there is nothing to find, and the server would call it an error.
  if (/^\d+$/.test(text)) return Number(text) > 2_147_483_647 ? undefined : executionById(db, Number(text))
  return (await db.select().from(backupExecutions).where(eq(backupExecutions.backup_id, text)))[0]
}

export interface ExecutionFilter {
  /** Id of the schedule. */
  schedule?: number
  /** Name of a schedule, with its id where there is one: also what a rebuild of the catalog found under that name. */
  named?: { name: string; id: number | undefined }
  storage?: number
  source?: number
  status?: readonly ExecutionStatus[]
  /** False: without copies. */
  copies?: boolean
  limit?: number
}

/** Executions, newest first. */
export const listExecutions = (db: Db, { schedule, storage, source, status, copies = true, limit = 50, named }: ExecutionFilter = {}): Promise<Execution[]> =>
  db.select().from(backupExecutions)
    .where(and(
      schedule === undefined ? undefined : eq(backupExecutions.schedule_id, schedule),
      named === undefined ? undefined : ofScheduleNamed(named.id, named.name),
      storage === undefined ? undefined : eq(backupExecutions.storage_backend_id, storage),
      source === undefined ? undefined : eq(backupExecutions.source_id, source),
      status === undefined ? undefined : inArray(backupExecutions.status, [...status]),
      copies ? undefined : isNull(backupExecutions.copy_of),
    ))
    .orderBy(...newestFirst)
    .limit(limit)

export type Enqueued = Omit<NewExecution, 'status' | 'started_at' | 'included_components'> & Partial<Pick<NewExecution, 'included_components'>>

/**
 * Puts an execution into the queue as `pending`, attempt 1 unless told otherwise. Undefined when the schedule has a live one, or this
 * tick and attempt is there already.
 */
export const enqueue = async (db: Db, execution: Enqueued): Promise<Execution | undefined> =>
  (await db.insert(backupExecutions)
    // When it was queued, until it is claimed: the column must not be empty.
    .values({ included_components: [], attempt: 1, ...execution, status: 'pending', started_at: sql`clock_timestamp()` })
    .onConflictDoNothing()
    .returning())[0]

/** Changes columns without a worker's guard, for what is no part of a run: verification results, warnings added later. */
export const updateExecution = async (db: Db, id: number, set: Partial<NewExecution>): Promise<Execution | undefined> =>
  (await db.update(backupExecutions).set({ ...set, updated_at: clock }).where(eq(backupExecutions.id, id)).returning())[0]

/** Asks for an execution to be cancelled; one that nobody has begun is cancelled at once. Undefined when it has ended. */
export const requestCancel = async (db: Db, id: number): Promise<Execution | undefined> => {
  const [waiting] = await db.update(backupExecutions)
    .set({ status: 'cancelled', cancel_requested_at: clock, completed_at: clock, updated_at: clock, error_message: 'cancelled before it began' })
    .where(and(eq(backupExecutions.id, id), inArray(backupExecutions.status, ['pending', 'scheduled'])))
    .returning()
  if (waiting !== undefined) return waiting
  return (await db.update(backupExecutions).set({ cancel_requested_at: clock, updated_at: clock })
    .where(and(eq(backupExecutions.id, id), inArray(backupExecutions.status, ['running', 'verifying'])))
    .returning())[0]
}

/** When the newest good backup of each schedule was begun, by the schedule's id; with one query, because there may be very many. */
export const newestGoodBackups = async (db: Db): Promise<Map<number, Date>> => {
  const rows = await db.select({
    id: backupSchedules.id,
    // Names as they are: drizzle leaves the table away where only one is selected from, and `id` would be the execution's.
    began: sql`(SELECT started_at FROM backup_executions WHERE schedule_id = backup_schedules.id AND copy_of IS NULL AND expiring_at IS NULL
      AND ${inArray(backupExecutions.status, [...goodExecutionStatuses])} ORDER BY started_at DESC LIMIT 1)`.mapWith(backupExecutions.started_at),
  }).from(backupSchedules)
  return new Map(rows.flatMap(({ id, began }) => ((began as Date | null) === null ? [] : [[id, began] as const])))
}

/** The next attempt of an execution that has ended. */
export const followUp = async (db: Db, id: number): Promise<Execution | undefined> =>
  (await db.select().from(backupExecutions).where(eq(backupExecutions.retry_of, id)).limit(1))[0]

/** Whether the lease of an execution has run out, by the database's clock. */
export const leaseOver = async (db: Db, id: number): Promise<boolean> =>
  (await db.select({ id: backupExecutions.id }).from(backupExecutions).where(and(eq(backupExecutions.id, id), lte(backupExecutions.lease_expires_at, clock)))).length > 0

/** Executions whose worker was lost and whose objects may still be in the storage; `old` when that was more than two minutes ago. */
export const listLeftovers = async (db: Db, limit = 20): Promise<{ execution: Execution; old: boolean }[]> =>
  db.select({ execution: backupExecutions, old: sql<boolean>`completed_at < clock_timestamp() - interval '2 minutes'` }).from(backupExecutions)
    .where(and(eq(backupExecutions.status, 'failed'), sql`execution_metadata ->> 'leftovers' = 'true'`))
    .orderBy(sql`random()`).limit(limit)

/** Cancels the runs of a schedule that the clock has queued and nobody has begun: it was switched off. Copies of what it made are still made. */
export const cancelSwitchedOff = (db: Db, schedule: number): Promise<Execution[]> =>
  db.update(backupExecutions)
    .set({ status: 'cancelled', completed_at: clock, updated_at: clock, error_message: 'cancelled before it began: the schedule was switched off' })
    .where(and(eq(backupExecutions.schedule_id, schedule), eq(backupExecutions.status, 'pending'), eq(backupExecutions.triggered_by, 'schedule'), isNotNull(backupExecutions.attempt), isNull(backupExecutions.copy_of)))
    .returning()

/**
 * Removes the record of an execution whose objects are gone; recoveries from it keep its `source_backup_id`, and copies become backups
 * of their own. Fails with `execution.in_use` (retryable) while a copy of it is being made.
 */
export const removeExecution = (db: Db, id: number): Promise<Execution | undefined> =>
  db.transaction(async (tx) => {
    const [copy] = await tx.select({ id: backupExecutions.id }).from(backupExecutions)
      .where(and(eq(backupExecutions.copy_of, id), inArray(backupExecutions.status, [...liveExecutionStatuses]))).limit(1)
    if (copy !== undefined) {
      throw new BackupdError('execution.in_use', `execution ${id} is being copied by execution ${copy.id}`, { retryable: true, hint: 'Try again when that has ended.' })
    }
    await tx.update(recoveryExecutions).set({ backup_execution_id: null }).where(eq(recoveryExecutions.backup_execution_id, id))
    return (await tx.delete(backupExecutions).where(eq(backupExecutions.id, id)).returning())[0]
  })
