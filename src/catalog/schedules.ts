import { and, asc, count, eq, inArray, sql } from './drizzle.js'
import type { Db } from './connect.js'
import { insertNamed, onlyOne } from './names.js'
import { backupExecutions, backupSchedules } from './schema.js'
import { liveExecutionStatuses, type ExecutionStatus } from './statuses.js'

export type Schedule = typeof backupSchedules.$inferSelect
export type NewSchedule = typeof backupSchedules.$inferInsert

/** Whether the daemon keeps the schedule for itself, to back up the catalog. */
export const isManaged = ({ managed_by }: Pick<Schedule, 'managed_by'>): boolean => managed_by === MANAGER

/** What `managed_by` holds of schedules that the daemon keeps for itself. */
export const MANAGER = 'backupd'

/** All schedules, by name. */
export const listSchedules = (db: Db): Promise<Schedule[]> =>
  db.select().from(backupSchedules).orderBy(asc(backupSchedules.name), asc(backupSchedules.id))

/** The schedule of exactly this name. Fails with `catalog.ambiguous`. */
export const findSchedule = async (db: Db, name: string): Promise<Schedule | undefined> =>
  onlyOne(await db.select().from(backupSchedules).where(eq(backupSchedules.name, name)), 'schedule', name)

export const scheduleById = async (db: Db, id: number): Promise<Schedule | undefined> =>
  (await db.select().from(backupSchedules).where(eq(backupSchedules.id, id)))[0]

/** Fails with `schedule.exists`. */
export const insertSchedule = (db: Db, schedule: NewSchedule): Promise<Schedule> =>
  insertNamed(db, 'schedule', schedule.name, (tx) => findSchedule(tx, schedule.name),
    (tx) => tx.insert(backupSchedules).values(schedule).returning())

/** The changed row, or undefined when there is none. */
export const updateSchedule = async (db: Db, id: number, set: Partial<NewSchedule>): Promise<Schedule | undefined> =>
  (await db.update(backupSchedules).set({ ...set, updated_at: sql`now()` }).where(eq(backupSchedules.id, id)).returning())[0]

export const setScheduleActive = (db: Db, id: number, active: boolean): Promise<Schedule | undefined> =>
  updateSchedule(db, id, { is_active: active })

/** What `next_run_at` is computed from; kept beside it in `next_run_for`. */
const timing = sql`(cron_expression || ' ' || timezone)`

/** That `next_run_at` was computed from something else, or that nobody has found out yet that it cannot be computed. */
const outdated = sql`(next_run_at IS NULL AND next_run_for IS DISTINCT FROM 'invalid ' || ${timing}
  OR next_run_at IS NOT NULL AND next_run_for <> ${timing})`

/** Schedules that a scheduler has to look at: due, without a next run, or with one that their settings no longer give. */
export const needsScheduler = sql`(is_active AND (next_run_at <= clock_timestamp() OR ${outdated}) OR NOT is_active AND next_run_at IS NOT NULL)`

/** Whether `next_run_at` is what the schedule's settings gave. One that another program wrote is taken at its word. */
export const nextRunHolds = (schedule: Schedule): boolean =>
  schedule.next_run_at !== null && [null, `${schedule.cron_expression} ${schedule.timezone}`].includes(schedule.next_run_for)

/** The schedules that a scheduler has to look at, oldest first; locked until the transaction ends, and without those that another daemon has locked. */
export const lockDueSchedules = (tx: Db, limit: number): Promise<Schedule[]> =>
  tx.select().from(backupSchedules)
    .where(needsScheduler)
    .orderBy(sql`next_run_at NULLS FIRST`, asc(backupSchedules.id))
    .limit(limit)
    // Not FOR UPDATE, which would make every insert of an execution, checking its foreign key, wait.
    .for('no key update', { skipLocked: true })

/** Locks a schedule until the transaction ends. Whoever changes an execution and its schedule locks the schedule first, so that no two wait for each other. */
export const lockSchedule = async (tx: Db, id: number): Promise<Schedule | undefined> =>
  (await tx.select().from(backupSchedules).where(eq(backupSchedules.id, id)).for('no key update'))[0]

/** Notes when the schedule runs next; not a change of its settings, so `updated_at` stays. */
export const setNextRun = async (db: Db, id: number, next: Date | null): Promise<void> => {
  await db.update(backupSchedules).set({ next_run_at: next, next_run_for: next === null ? null : timing }).where(eq(backupSchedules.id, id))
}

/** Notes that the schedule's settings give no next run, until they are changed. */
export const setNoNextRun = async (db: Db, id: number): Promise<void> => {
  await db.update(backupSchedules).set({ next_run_at: null, next_run_for: sql`'invalid ' || ${timing}`, last_status: 'failed' }).where(eq(backupSchedules.id, id))
}

/** Counts a run that has ended, and notes when it began. */
export const recordRun = async (db: Db, id: number, status: ExecutionStatus, startedAt: Date): Promise<void> => {
  const succeeded = status === 'completed' || status === 'verified'
  await db.update(backupSchedules)
    .set({
      last_run_at: startedAt,
      last_status: status,
      total_runs: sql`total_runs + 1`,
      ...(succeeded ? { successful_runs: sql`successful_runs + 1` } : {}),
      ...(status === 'failed' || status === 'corrupted' ? { failed_runs: sql`failed_runs + 1` } : {}),
    })
    .where(eq(backupSchedules.id, id))
}

/** What refers to a schedule: executions that are waiting or running, and all of them. */
export const usesOfSchedule = async (db: Db, id: number): Promise<{ live: number; executions: number }> => {
  const [all] = await db.select({ n: count() }).from(backupExecutions).where(eq(backupExecutions.schedule_id, id))
  const [live] = await db.select({ n: count() }).from(backupExecutions)
    .where(and(eq(backupExecutions.schedule_id, id), inArray(backupExecutions.status, [...liveExecutionStatuses])))
  return { live: live?.n ?? 0, executions: all?.n ?? 0 }
}

/** Removes a schedule of which nothing is live; its backups stay, without it. */
export const removeSchedule = (db: Db, id: number): Promise<Schedule | undefined> =>
  db.transaction(async (tx) => {
    await tx.update(backupExecutions).set({ schedule_id: null }).where(eq(backupExecutions.schedule_id, id))
    return (await tx.delete(backupSchedules).where(eq(backupSchedules.id, id)).returning())[0]
  })
