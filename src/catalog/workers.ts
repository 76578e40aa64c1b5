import { and, asc, eq, gt, lt, sql } from './drizzle.js'
import type { Db } from './connect.js'
import { clock, leaseEnd } from './leases.js'
import { backupWorkers } from './schema.js'
import type { WorkerKind } from './statuses.js'

export type Worker = typeof backupWorkers.$inferSelect

export interface NewWorker {
  id: string
  kind: WorkerKind
  host: string
  pid: number
  version: string
  state: string
  details?: unknown
}

/** Makes a process known, alive for 30 s from now. Doing it again is a heartbeat. */
export const registerWorker = async (db: Db, worker: NewWorker): Promise<void> => {
  const alive = { heartbeat_at: clock, lease_expires_at: leaseEnd }
  await db.insert(backupWorkers).values({ ...worker, ...alive, started_at: clock })
    .onConflictDoUpdate({ target: backupWorkers.id, set: { ...alive, state: worker.state, details: worker.details ?? null } })
}

/** Says that a worker is alive. False: its record is gone, and it has to register again. */
export const heartbeat = async (db: Db, id: string, state: string, details?: unknown): Promise<boolean> =>
  (await db.update(backupWorkers)
    .set({ heartbeat_at: clock, lease_expires_at: leaseEnd, state, ...(details === undefined ? {} : { details }) })
    .where(eq(backupWorkers.id, id)).returning({ id: backupWorkers.id })).length > 0

export const removeWorker = async (db: Db, id: string): Promise<void> => {
  await db.delete(backupWorkers).where(eq(backupWorkers.id, id))
}

/** The workers that are alive, oldest first. */
export const liveWorkers = (db: Db, kind?: WorkerKind): Promise<Worker[]> =>
  db.select().from(backupWorkers)
    .where(and(gt(backupWorkers.lease_expires_at, clock), kind === undefined ? undefined : eq(backupWorkers.kind, kind)))
    .orderBy(asc(backupWorkers.started_at))

/** Removes the records of workers that have been silent for an hour. */
export const sweepWorkers = async (db: Db): Promise<number> =>
  (await db.delete(backupWorkers).where(lt(backupWorkers.lease_expires_at, sql`clock_timestamp() - interval '1 hour'`))
    .returning({ id: backupWorkers.id })).length
