import { asc, count, eq, sql } from './drizzle.js'
import type { Db } from './connect.js'
import { insertNamed } from './names.js'
import { backupExecutions, backupSchedules, backupSources } from './schema.js'

export type Source = typeof backupSources.$inferSelect
export type NewSource = typeof backupSources.$inferInsert

/** All sources, by name. */
export const listSources = (db: Db): Promise<Source[]> => db.select().from(backupSources).orderBy(asc(backupSources.name))

/** The source of exactly this name. */
export const findSource = async (db: Db, name: string): Promise<Source | undefined> =>
  (await db.select().from(backupSources).where(eq(backupSources.name, name)))[0]

export const sourceById = async (db: Db, id: number): Promise<Source | undefined> =>
  (await db.select().from(backupSources).where(eq(backupSources.id, id)))[0]

/** Fails with `source.exists`. The connection must be sealed before. */
export const insertSource = (db: Db, source: NewSource): Promise<Source> =>
  insertNamed(db, 'source', source.name, (tx) => findSource(tx, source.name), (tx) => tx.insert(backupSources).values(source).returning())

/** The changed row, or undefined when there is none. */
export const updateSource = async (db: Db, id: number, set: Partial<NewSource>): Promise<Source | undefined> =>
  (await db.update(backupSources).set({ ...set, updated_at: sql`now()` }).where(eq(backupSources.id, id)).returning())[0]

/** What refers to a source: names of schedules, and how many executions. */
export const usesOfSource = async (db: Db, id: number): Promise<{ schedules: string[]; executions: number }> => {
  const schedules = await db.select({ name: backupSchedules.name }).from(backupSchedules).where(eq(backupSchedules.source_id, id))
    .orderBy(asc(backupSchedules.name))
  const [executions] = await db.select({ n: count() }).from(backupExecutions).where(eq(backupExecutions.source_id, id))
  return { schedules: schedules.map(({ name }) => name), executions: executions?.n ?? 0 }
}

/** Removes a source that no schedule uses; its executions stay, without it. */
export const removeSource = (db: Db, id: number): Promise<Source | undefined> =>
  db.transaction(async (tx) => {
    await tx.update(backupExecutions).set({ source_id: null }).where(eq(backupExecutions.source_id, id))
    return (await tx.delete(backupSources).where(eq(backupSources.id, id)).returning())[0]
  })
