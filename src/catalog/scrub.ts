import { and, eq, inArray, sql, type SQL } from './drizzle.js'
import type { Db } from './connect.js'
import type { Execution } from './executions.js'
import { clock } from './leases.js'
import { backupExecutions, storageBackendConfigs } from './schema.js'
import { goodExecutionStatuses } from './statuses.js'

// Who reads a stored backup back notes that in the row's metadata. Its status stays `completed` meanwhile: a schedule whose last backup is read
// back must be able to run.

/** A reader that is silent for so long is gone. Seconds. */
export const SCRUB_LEASE = 300

/** Share of the days after which a backup may be read back again, so that all are by their end. */
const EARLY = 0.8

const metadata = sql`CASE WHEN jsonb_typeof(${backupExecutions.execution_metadata}::jsonb) = 'object' THEN ${backupExecutions.execution_metadata}::jsonb ELSE '{}' END`
// Numbers in JSON are compared as JSON, because anything else may stand there.
const nowNumber = sql`to_jsonb(extract(epoch FROM clock_timestamp()))`
const note = (worker: string | null, seconds: number): SQL =>
  sql`${metadata} || jsonb_build_object('scrub', jsonb_build_object('worker', ${worker}::text, 'until', extract(epoch FROM clock_timestamp()) + ${seconds}::integer))`
const mine = (id: number, worker: string): SQL | undefined =>
  and(eq(backupExecutions.id, id), sql`${backupExecutions.execution_metadata}::jsonb #>> '{scrub,worker}' = ${worker}`)

/** Takes the good backup that was not read back for longest, when that is long enough ago; no other worker gets it for `SCRUB_LEASE` seconds. */
export const claimScrub = async (db: Db, worker: string, days: number): Promise<Execution | undefined> =>
  (await db.update(backupExecutions).set({ execution_metadata: note(worker, SCRUB_LEASE) }).where(eq(backupExecutions.id, sql`(
    SELECT e.id FROM ${backupExecutions} e JOIN ${storageBackendConfigs} s ON s.id = e.storage_backend_id AND s.is_active
    WHERE e.status IN ('completed', 'verified') AND e.checksum IS NOT NULL AND e.expiring_at IS NULL
      AND coalesce(e.verified_at, e.completed_at, e.started_at) < clock_timestamp() - make_interval(secs => ${days * 86_400 * EARLY}::double precision)
      AND NOT coalesce(e.execution_metadata::jsonb #> '{scrub,until}' > ${nowNumber}, false)
    ORDER BY coalesce(e.verified_at, e.completed_at, e.started_at), e.id LIMIT 1 FOR UPDATE OF e SKIP LOCKED)`)).returning())[0]

/** Keeps what was claimed. False: somebody else has it. */
export const renewScrub = async (db: Db, id: number, worker: string): Promise<boolean> =>
  (await db.update(backupExecutions).set({ execution_metadata: note(worker, SCRUB_LEASE) }).where(mine(id, worker)).returning({ id: backupExecutions.id })).length > 0

/** Whether the backup is still this worker's to judge, and still one that is kept; its row is locked until the transaction ends. */
export const lockScrubbed = async (tx: Db, id: number, worker: string): Promise<boolean> =>
  (await tx.select({ id: backupExecutions.id }).from(backupExecutions)
    .where(and(mine(id, worker), inArray(backupExecutions.status, [...goodExecutionStatuses]), sql`${backupExecutions.expiring_at} IS NULL`)).for('update')).length > 0

/** Gives back what was claimed; with `retryIn` seconds nobody takes it before they are over. */
export const releaseScrub = async (db: Db, id: number, worker: string, retryIn?: number): Promise<void> => {
  await db.update(backupExecutions)
    .set({ execution_metadata: retryIn === undefined ? sql`${metadata} - 'scrub'` : note(null, retryIn), updated_at: clock }).where(mine(id, worker))
}
