import { and, eq, isNotNull, sql, type SQL, type AnyPgColumn } from './drizzle.js'

/** How long a claim holds without being renewed. */
export const leaseSeconds = 30

/** The database's clock, also within a transaction that has been open for a while: the only clock that leases go by. */
export const clock = sql<Date>`clock_timestamp()`

/** When a lease taken or renewed now ends. */
export const leaseEnd = sql`clock_timestamp() + make_interval(secs => ${leaseSeconds})`

interface Leased {
  id: AnyPgColumn
  worker_id: AnyPgColumn
  lease_expires_at: AnyPgColumn
}

/**
 * That `worker` still has row `id`. Every write of a worker is under this condition, so that one that froze changes nothing later. A
 * lease that ran out while nobody took the row over still holds: the catalog may have been away for minutes, and the work went on.
 */
export const holds = (table: Leased, id: number, worker: string): SQL | undefined =>
  and(eq(table.id, id), eq(table.worker_id, worker), isNotNull(table.lease_expires_at))

/** What renewing a lease says. */
export interface Renewal {
  /** False: the row is somebody else's now, or ended; the work on it must stop. */
  held: boolean
  cancelRequested: boolean
}
