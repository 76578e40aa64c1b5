import { and, asc, desc, eq, gt, inArray, isNull, sql } from './drizzle.js'
import type { Db } from './connect.js'
import { backupExecutions } from './schema.js'
import { goodExecutionStatuses } from './statuses.js'

type Execution = typeof backupExecutions.$inferSelect
type NewExecution = typeof backupExecutions.$inferInsert

/** What says whether a folder of a storage is on record. */
export type Recorded = Pick<Execution, 'id' | 'backup_id' | 'storage_backend_id' | 'status' | 'checksum'> & { stored_as: string | null }

const page = 5_000

/** All executions, as far as they say which folder of which storage is theirs. */
export async function* readRecorded(db: Db): AsyncGenerator<Recorded> {
  for (let last = 0; ;) {
    const rows = await db.select({
      id: backupExecutions.id, backup_id: backupExecutions.backup_id, storage_backend_id: backupExecutions.storage_backend_id,
      status: backupExecutions.status, checksum: backupExecutions.checksum, stored_as: sql<string | null>`execution_metadata ->> 'stored_as'`,
    }).from(backupExecutions).where(gt(backupExecutions.id, last)).orderBy(asc(backupExecutions.id)).limit(page)
    yield* rows
    const end = rows.at(-1)
    if (end === undefined) return
    last = end.id
  }
}

/** Puts backups on record that were found in a storage; one whose backup_id is there by now stays as it is, and is not given back. */
export const insertFound = (db: Db, rows: readonly NewExecution[]): Promise<Execution[]> =>
  rows.length === 0 ? Promise.resolve([]) : db.insert(backupExecutions).values([...rows]).onConflictDoNothing().returning()

/** That an execution was found in a storage and belongs to no schedule's row, only to a name. */
const onlyNamed = (schedule: string) => and(
  isNull(backupExecutions.schedule_id),
  sql`execution_metadata ->> 'rebuilt_at' IS NOT NULL`,
  sql`backup_config ->> 'schedule' = ${schedule}`,
)

/** The newest good backup that was found in a storage and names `schedule` in its manifest, where no row of that schedule took it. */
export const latestFound = async (db: Db, schedule: string): Promise<Execution | undefined> =>
  (await db.select().from(backupExecutions)
    .where(and(onlyNamed(schedule), isNull(backupExecutions.copy_of), inArray(backupExecutions.status, [...goodExecutionStatuses])))
    .orderBy(desc(backupExecutions.started_at), desc(backupExecutions.id)).limit(1))[0]

/** Whether there are such executions, good or not. */
export const namedByFound = async (db: Db, schedule: string): Promise<boolean> =>
  (await db.select({ id: backupExecutions.id }).from(backupExecutions).where(onlyNamed(schedule)).limit(1)).length > 0

/** Executions that a user means by the name of a schedule: those of its row, and those that were found and only name it. */
export const ofScheduleNamed = (id: number | undefined, name: string) =>
  id === undefined ? onlyNamed(name) : sql`(${eq(backupExecutions.schedule_id, id)} OR ${onlyNamed(name)})`
