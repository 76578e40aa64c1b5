import { and, asc, eq, inArray, isNotNull, lte, sql } from './drizzle.js'
import type { Db } from './connect.js'
import type { Execution, NewExecution } from './executions.js'
import { clock, holds, leaseEnd, type Renewal } from './leases.js'
import { backupExecutions } from './schema.js'
import type { ExecutionStatus } from './statuses.js'

/** That a waiting execution may begin. */
export const due = sql`(not_before IS NULL OR not_before <= clock_timestamp())`

const taken = (worker: string, to: ExecutionStatus) =>
  ({ status: to, worker_id: worker, lease_expires_at: leaseEnd, updated_at: clock })

/** Takes a pending execution for `worker`, with a lease. Undefined when somebody else was faster. */
export const claim = async (db: Db, id: number, worker: string): Promise<Execution | undefined> =>
  (await db.update(backupExecutions)
    .set({ ...taken(worker, 'running'), started_at: clock })
    .where(and(eq(backupExecutions.id, id), eq(backupExecutions.status, 'pending')))
    .returning())[0]

/** Takes the execution that has waited longest and may begin. Undefined when there is none that nobody else is taking. */
export const claimNext = async (db: Db, worker: string): Promise<Execution | undefined> => {
  const next = db.select({ id: backupExecutions.id }).from(backupExecutions)
    .where(and(eq(backupExecutions.status, 'pending'), isNotNull(backupExecutions.attempt), due))
    .orderBy(sql`coalesce(not_before, created_at)`, asc(backupExecutions.id))
    .limit(1)
    .for('update', { skipLocked: true })
  return (await db.update(backupExecutions)
    .set({ ...taken(worker, 'running'), started_at: clock })
    // `=` and not `IN`: an uncorrelated scalar subquery runs once, so no more than one row is locked and taken.
    .where(and(eq(backupExecutions.id, sql`(${next})`), eq(backupExecutions.status, 'pending')))
    .returning())[0]
}

/** Takes an execution that nobody works on for something else than its backup, such as `verifying` a completed one. */
export const claimAs = async (db: Db, id: number, worker: string, from: ExecutionStatus, to: ExecutionStatus): Promise<Execution | undefined> =>
  (await db.update(backupExecutions).set(taken(worker, to)).where(and(eq(backupExecutions.id, id), eq(backupExecutions.status, from))).returning())[0]

/** Renews the lease, and says whether it was still there and whether somebody asked to cancel. */
export const renewLease = async (db: Db, id: number, worker: string): Promise<Renewal> => {
  const [row] = await db.update(backupExecutions).set({ lease_expires_at: leaseEnd })
    .where(holds(backupExecutions, id, worker)).returning({ cancel: backupExecutions.cancel_requested_at })
  return { held: row !== undefined, cancelRequested: row !== undefined && row.cancel !== null }
}

/** Notes how far the work is. False: the lease is lost. */
export const updateProgress = async (db: Db, id: number, worker: string, progress: unknown): Promise<boolean> =>
  (await db.update(backupExecutions).set({ progress }).where(holds(backupExecutions, id, worker)).returning({ id: backupExecutions.id })).length > 0

export interface Transition {
  from: ExecutionStatus
  to: ExecutionStatus
  worker: string
  set?: Partial<NewExecution>
}

/** Changes the status under the worker's lease. Undefined: the lease is lost, or the status was another; nothing was changed. */
export const transition = async (db: Db, id: number, { from, to, worker, set = {} }: Transition): Promise<Execution | undefined> =>
  (await db.update(backupExecutions).set({ ...set, status: to, updated_at: clock })
    .where(and(holds(backupExecutions, id, worker), eq(backupExecutions.status, from))).returning())[0]

const ended = { lease_expires_at: null, updated_at: clock } as const
const timed = {
  completed_at: clock,
  // Whole seconds, by the database's clock.
  duration_seconds: sql`greatest(0, round(extract(epoch FROM clock_timestamp() - started_at)))::integer`,
} as const

/** Ends a run: status, end and duration, and gives the lease back. Undefined: the lease is lost; nothing was changed. */
export const finish = async (db: Db, id: number, { from, to, worker, set = {} }: Transition): Promise<Execution | undefined> =>
  (await db.update(backupExecutions).set({ ...timed, ...set, ...ended, status: to })
    .where(and(holds(backupExecutions, id, worker), eq(backupExecutions.status, from))).returning())[0]

/** Gives an execution back after `claimAs`: like `finish`, but the times of the backup stay. */
export const release = async (db: Db, id: number, { from, to, worker, set = {} }: Transition): Promise<Execution | undefined> =>
  (await db.update(backupExecutions).set({ ...set, ...ended, status: to })
    .where(and(holds(backupExecutions, id, worker), eq(backupExecutions.status, from))).returning())[0]

/** That the worker of an execution died or froze. */
export const expired = and(
  inArray(backupExecutions.status, ['running', 'verifying']),
  isNotNull(backupExecutions.worker_id),
  lte(backupExecutions.lease_expires_at, clock),
)

/** Executions whose worker died or froze, oldest first. */
export const listExpired = (db: Db, limit = 100): Promise<Execution[]> =>
  db.select().from(backupExecutions).where(expired).orderBy(asc(backupExecutions.lease_expires_at)).limit(limit)

/**
 * Ends an execution whose lease has run out. Of several daemons that try, one gets the row. Undefined: somebody else has done it, or
 * the worker came back in time.
 */
export const endExpired = async (
  db: Db, id: number, { from, to, set = {} }: Omit<Transition, 'worker'>,
): Promise<Execution | undefined> =>
  (await db.update(backupExecutions).set({ ...(from === 'running' ? timed : {}), ...set, ...ended, status: to })
    .where(and(eq(backupExecutions.id, id), eq(backupExecutions.status, from), expired)).returning())[0]
