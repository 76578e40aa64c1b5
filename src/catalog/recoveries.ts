import { and, asc, desc, eq, inArray, isNotNull, isNull, lte, notInArray, sql, type SQL } from './drizzle.js'
import type { Db } from './connect.js'
import { jsonList, jsonObject } from './json.js'
import { clock, holds, leaseEnd, type Renewal } from './leases.js'
import { recoveryExecutions } from './schema.js'
import { endedRecoveryStatuses, type RecoveryStatus } from './statuses.js'

export type Recovery = typeof recoveryExecutions.$inferSelect
export type NewRecovery = typeof recoveryExecutions.$inferInsert

// Written in SQL, because two statements in a row may come from two processes. The column may be `json` and hold anything.
const historyWith = (status: RecoveryStatus): SQL => sql`jsonb_set(
  CASE WHEN jsonb_typeof(recovery_config::jsonb) = 'object' THEN recovery_config::jsonb ELSE '{}' END,
  '{status_history}',
  CASE WHEN jsonb_typeof(recovery_config::jsonb -> 'status_history') = 'array' THEN recovery_config::jsonb -> 'status_history' ELSE '[]' END
    || jsonb_build_object('status', ${status}::text, 'at', clock_timestamp()))`

/** The statuses that a recovery went through, with the database's times (ISO). */
export const statusHistory = (recovery: Recovery): { status: string; at: string }[] =>
  jsonList(jsonObject(recovery.recovery_config)['status_history']).map(jsonObject).flatMap(({ status, at }) =>
    typeof status === 'string' && typeof at === 'string' ? [{ status, at }] : [])

/** The recovery that `ref` means: a number or a recovery_id. */
export const findRecovery = async (db: Db, ref: string | number): Promise<Recovery | undefined> => {
  const text = String(ref)
  const number = /^\d+$/.test(text)
  if (number && Number(text) > 2_147_483_647) return undefined
  return (await db.select().from(recoveryExecutions)
    .where(number ? eq(recoveryExecutions.id, Number(text)) : eq(recoveryExecutions.recovery_id, text)))[0]
}

/** Recoveries, newest first. */
export const listRecoveries = (db: Db, { status, limit = 50 }: { status?: readonly RecoveryStatus[]; limit?: number } = {}): Promise<Recovery[]> =>
  db.select().from(recoveryExecutions)
    .where(status === undefined ? undefined : inArray(recoveryExecutions.status, [...status]))
    .orderBy(desc(recoveryExecutions.started_at), desc(recoveryExecutions.id)).limit(limit)

/** Records a recovery as `pending`. `recovery_config` must hold no secret. */
export const insertRecovery = async (db: Db, recovery: Omit<NewRecovery, 'status' | 'started_at'>): Promise<Recovery> => {
  const history = [{ status: 'pending', at: new Date().toISOString() }]
  const [row] = await db.insert(recoveryExecutions)
    .values({
      ...recovery,
      recovery_config: { ...jsonObject(recovery.recovery_config), status_history: history },
      status: 'pending',
      started_at: clock,
    })
    .returning()
  if (row === undefined) throw new Error('the recovery was not stored')
  return row
}

const taken = (worker: string) => ({
  status: 'preparing', worker_id: worker, lease_expires_at: leaseEnd, started_at: clock, updated_at: clock,
  recovery_config: historyWith('preparing'),
})

/** Takes a pending recovery for `worker`, with a lease, as `preparing`. Undefined when somebody else was faster. */
export const claimRecovery = async (db: Db, id: number, worker: string): Promise<Recovery | undefined> =>
  (await db.update(recoveryExecutions).set(taken(worker))
    .where(and(eq(recoveryExecutions.id, id), eq(recoveryExecutions.status, 'pending'))).returning())[0]

/** That a recovery waits for a daemon: a queued one of ours says where it goes; rows of the other application, and those that a command runs itself, are not taken. */
export const waitingRecovery = and(
  eq(recoveryExecutions.status, 'pending'),
  isNull(recoveryExecutions.worker_id),
  sql`recovery_config::jsonb -> 'target' IS NOT NULL`,
)

/** Takes the queued recovery that has waited longest, as `preparing`. Undefined when there is none that nobody else is taking. */
export const claimNextRecovery = async (db: Db, worker: string): Promise<Recovery | undefined> => {
  const next = db.select({ id: recoveryExecutions.id }).from(recoveryExecutions).where(waitingRecovery).orderBy(asc(recoveryExecutions.id)).limit(1).for('update', { skipLocked: true })
  return (await db.update(recoveryExecutions).set(taken(worker))
    .where(and(eq(recoveryExecutions.id, sql`(${next})`), eq(recoveryExecutions.status, 'pending'))).returning())[0]
}

/** Renews the lease, and says whether it was still there and whether somebody asked to cancel. */
export const renewRecoveryLease = async (db: Db, id: number, worker: string): Promise<Renewal> => {
  const [row] = await db.update(recoveryExecutions).set({ lease_expires_at: leaseEnd })
    .where(holds(recoveryExecutions, id, worker)).returning({ cancel: recoveryExecutions.cancel_requested_at })
  return { held: row !== undefined, cancelRequested: row !== undefined && row.cancel !== null }
}

/** Notes how far the work is. False: the lease is lost. */
export const updateRecoveryProgress = async (db: Db, id: number, worker: string, progress: unknown): Promise<boolean> =>
  (await db.update(recoveryExecutions).set({ progress }).where(holds(recoveryExecutions, id, worker)).returning({ id: recoveryExecutions.id })).length > 0

export interface RecoveryTransition {
  from: RecoveryStatus
  to: RecoveryStatus
  worker: string
  /** Not `recovery_config`, which keeps the history. */
  set?: Omit<Partial<NewRecovery>, 'recovery_config'>
}

const ended = {
  completed_at: clock,
  duration_seconds: sql`greatest(0, round(extract(epoch FROM clock_timestamp() - started_at)))::integer`,
  lease_expires_at: null,
} as const

const isEnd = (status: RecoveryStatus): boolean => (endedRecoveryStatuses as readonly RecoveryStatus[]).includes(status)

/**
 * Changes the status under the worker's lease and adds it to the history; a final one also sets end and duration and gives the lease
 * back. Undefined: the lease is lost, or the status was another; nothing was changed.
 */
export const transitionRecovery = async (
  db: Db, id: number, { from, to, worker, set = {} }: RecoveryTransition,
): Promise<Recovery | undefined> =>
  (await db.update(recoveryExecutions)
    .set({ ...(isEnd(to) ? ended : {}), ...set, status: to, updated_at: clock, recovery_config: historyWith(to) })
    .where(and(holds(recoveryExecutions, id, worker), eq(recoveryExecutions.status, from))).returning())[0]

/** Asks for a recovery to be cancelled; one that nobody has begun is cancelled at once. Undefined when it has ended. */
export const requestRecoveryCancel = async (db: Db, id: number): Promise<Recovery | undefined> => {
  const [waiting] = await db.update(recoveryExecutions)
    .set({
      ...ended, status: 'cancelled', cancel_requested_at: clock, updated_at: clock, error_message: 'cancelled before it began',
      recovery_config: historyWith('cancelled'),
    })
    .where(and(eq(recoveryExecutions.id, id), eq(recoveryExecutions.status, 'pending'))).returning()
  if (waiting !== undefined) return waiting
  return (await db.update(recoveryExecutions).set({ cancel_requested_at: clock, updated_at: clock })
    .where(and(eq(recoveryExecutions.id, id), notInArray(recoveryExecutions.status, [...endedRecoveryStatuses]))).returning())[0]
}

/** That the worker of a recovery died or froze. */
export const expiredRecovery = and(
  notInArray(recoveryExecutions.status, ['pending', ...endedRecoveryStatuses]),
  isNotNull(recoveryExecutions.worker_id),
  lte(recoveryExecutions.lease_expires_at, clock),
)

/** Recoveries whose worker died or froze, oldest first. */
export const listExpiredRecoveries = (db: Db, limit = 100): Promise<Recovery[]> =>
  db.select().from(recoveryExecutions).where(expiredRecovery).orderBy(asc(recoveryExecutions.lease_expires_at)).limit(limit)

/** Ends a recovery whose lease has run out as failed. Undefined: somebody else has done it, or the worker came back in time. */
export const failExpiredRecovery = async (
  db: Db, id: number, set: Pick<NewRecovery, 'error_message' | 'error_details'>,
): Promise<Recovery | undefined> =>
  (await db.update(recoveryExecutions)
    .set({ ...set, ...ended, status: 'failed', updated_at: clock, recovery_config: historyWith('failed') })
    .where(and(eq(recoveryExecutions.id, id), expiredRecovery)).returning())[0]
