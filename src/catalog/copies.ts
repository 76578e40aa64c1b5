import { and, desc, eq, inArray, or, sql } from './drizzle.js'
import type { Db } from './connect.js'
import type { Execution } from './executions.js'
import { backupExecutions } from './schema.js'
import type { ExecutionStatus } from './statuses.js'

/** The executions whose objects are, or were to be, in `folder` of a storage (undefined: any), newest first: a copy lies in one of its original's name. */
export const executionsOfFolder = (db: Db, storage: number | undefined, folder: string, statuses?: readonly ExecutionStatus[]): Promise<Execution[]> =>
  db.select().from(backupExecutions)
    .where(and(
      storage === undefined ? undefined : eq(backupExecutions.storage_backend_id, storage),
      or(eq(backupExecutions.backup_id, folder), sql`execution_metadata ->> 'stored_as' = ${folder}`),
      statuses === undefined ? undefined : inArray(backupExecutions.status, [...statuses]),
    ))
    .orderBy(desc(backupExecutions.id))

/** Locks an execution until the transaction ends, so that no two copies of it are asked for at once. */
export const lockExecution = async (tx: Db, id: number): Promise<Execution | undefined> =>
  (await tx.select().from(backupExecutions).where(eq(backupExecutions.id, id)).for('no key update'))[0]

/** The copies of an execution that wait to be made. */
export const waitingCopies = (db: Db, original: number): Promise<Execution[]> =>
  db.select().from(backupExecutions).where(and(eq(backupExecutions.copy_of, original), eq(backupExecutions.status, 'pending'))).orderBy(backupExecutions.id)
