import { and, eq, inArray, isNull, ne, notInArray, or, sql, type SQL } from './drizzle.js'
import type { Db } from './connect.js'
import type { Execution } from './executions.js'
import { clock } from './leases.js'
import { backupExecutions, recoveryExecutions } from './schema.js'
import { endedRecoveryStatuses, goodExecutionStatuses, liveExecutionStatuses } from './statuses.js'

const running = notInArray(recoveryExecutions.status, [...endedRecoveryStatuses])

// Who reads a stored backup back says so in its metadata, and until when that holds. Anything may stand there.
const readBack = sql<boolean>`coalesce(execution_metadata::jsonb #>> '{scrub,worker}' IS NOT NULL
  AND execution_metadata::jsonb #> '{scrub,until}' > to_jsonb(extract(epoch FROM clock_timestamp())), false)`

/** What retention has to know of an execution; the manifest, which may be long, stays where it is. */
export const listCandidates = (db: Db) =>
  db.select({
    id: backupExecutions.id,
    backup_id: backupExecutions.backup_id,
    schedule_id: backupExecutions.schedule_id,
    storage_backend_id: backupExecutions.storage_backend_id,
    backup_type: backupExecutions.backup_type,
    status: backupExecutions.status,
    verification_status: backupExecutions.verification_status,
    started_at: backupExecutions.started_at,
    copy_of: backupExecutions.copy_of,
    pinned: backupExecutions.pinned,
    expiring_at: backupExecutions.expiring_at,
    stored: backupExecutions.compressed_size_bytes,
    backup_config: backupExecutions.backup_config,
    stored_as: sql<string | null>`execution_metadata ->> 'stored_as'`,
    reading: readBack,
    // What this program made was taken by a worker, or queued for one, or has a manifest.
    ours: sql<boolean>`(worker_id IS NOT NULL OR attempt IS NOT NULL OR execution_metadata ->> 'manifest' IS NOT NULL)`,
  }).from(backupExecutions).orderBy(backupExecutions.started_at, backupExecutions.id)

export type Candidate = Awaited<ReturnType<typeof listCandidates>>[number]

/** Recoveries that have not ended, with what they read, and the backup that was made of what they replace. */
export const runningRecoveries = (db: Db) =>
  db.select({
    id: recoveryExecutions.id, execution: recoveryExecutions.backup_execution_id, backup_id: recoveryExecutions.source_backup_id, before: recoveryExecutions.pre_recovery_backup_id,
  }).from(recoveryExecutions).where(running)

/** Why a deletion may not begin, found at its last moment. */
export type Hindrance = 'gone' | 'pinned' | 'live' | 'verified' | 'restored' | 'copied'

const hindranceOf = async (tx: Db, row: Execution): Promise<Hindrance | undefined> => {
  if (row.pinned) return 'pinned'
  if ((liveExecutionStatuses as readonly string[]).includes(row.status)) return 'live'
  const [verified] = await tx.select({ reading: readBack }).from(backupExecutions).where(eq(backupExecutions.id, row.id))
  if (verified?.reading === true) return 'verified'
  const readers = or(eq(recoveryExecutions.backup_execution_id, row.id), eq(recoveryExecutions.source_backup_id, row.backup_id), eq(recoveryExecutions.pre_recovery_backup_id, row.backup_id))
  const [recovery] = await tx.select({ id: recoveryExecutions.id }).from(recoveryExecutions).where(and(running, readers)).limit(1)
  if (recovery !== undefined) return 'restored'
  const [copy] = await tx.select({ id: backupExecutions.id }).from(backupExecutions)
    .where(and(eq(backupExecutions.copy_of, row.id), inArray(backupExecutions.status, [...liveExecutionStatuses]))).limit(1)
  return copy === undefined ? undefined : 'copied'
}

/**
 * Marks an execution as being deleted, from when on it is no backup any more. The row is locked first, so that a restore, a copy or a
 * pin either comes before and is seen here, or comes after and sees the mark.
 */
export const markExpiring = (db: Db, id: number): Promise<{ row: Execution } | { hindrance: Hindrance }> =>
  db.transaction(async (tx) => {
    const [row] = await tx.select().from(backupExecutions).where(eq(backupExecutions.id, id)).for('update')
    if (row === undefined) return { hindrance: 'gone' as const }
    const hindrance = await hindranceOf(tx, row)
    if (hindrance !== undefined) return { hindrance }
    await tx.update(backupExecutions).set({ expiring_at: sql`coalesce(expiring_at, ${clock})` }).where(eq(backupExecutions.id, id))
    return { row }
  })

/** Takes the mark back, where nothing of the backup has been removed: it is what it was. */
export const unmarkExpiring = async (db: Db, id: number): Promise<void> => {
  await db.update(backupExecutions).set({ expiring_at: null }).where(eq(backupExecutions.id, id))
}

/** Other executions whose objects are in the same place: two storages may mean the same one, and a copy may have taken the place of a damaged one. */
export const sharersOf = (db: Db, { id, storage_backend_id, storage_location }: Execution, folder: string): Promise<{ id: number }[]> => {
  const samePlace: SQL | undefined = and(eq(backupExecutions.storage_backend_id, storage_backend_id), or(eq(backupExecutions.backup_id, folder), sql`execution_metadata ->> 'stored_as' = ${folder}`))
  return db.select({ id: backupExecutions.id }).from(backupExecutions).where(and(
    ne(backupExecutions.id, id),
    inArray(backupExecutions.status, [...goodExecutionStatuses, ...liveExecutionStatuses, 'corrupted']),
    isNull(backupExecutions.expiring_at),
    storage_location === null ? samePlace : or(samePlace, eq(backupExecutions.storage_location, storage_location)),
  ))
}

/** Pins or unpins an execution. Undefined: it is gone, or its deletion has begun. */
export const setPinned = async (db: Db, id: number, pinned: boolean): Promise<Execution | undefined> =>
  (await db.update(backupExecutions).set({ pinned, updated_at: clock }).where(and(eq(backupExecutions.id, id), isNull(backupExecutions.expiring_at))).returning())[0]

/** Locks an execution so that its deletion cannot begin before the transaction ends. Undefined: it is gone, or it has begun. */
export const holdExecution = async (tx: Db, id: number): Promise<Execution | undefined> => {
  const [row] = await tx.select().from(backupExecutions).where(eq(backupExecutions.id, id)).for('key share')
  return row === undefined || row.expiring_at !== null ? undefined : row
}
