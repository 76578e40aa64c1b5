import { asc, count, eq, sql } from './drizzle.js'
import type { Db } from './connect.js'
import { insertNamed } from './names.js'
import { backupNotifications, backupNotifiers } from './schema.js'

export type Notifier = typeof backupNotifiers.$inferSelect
export type NewNotifier = typeof backupNotifiers.$inferInsert

/** All notifiers, by name. */
export const listNotifiers = (db: Db): Promise<Notifier[]> => db.select().from(backupNotifiers).orderBy(asc(backupNotifiers.name))

/** The notifier of exactly this name. */
export const findNotifier = async (db: Db, name: string): Promise<Notifier | undefined> =>
  (await db.select().from(backupNotifiers).where(eq(backupNotifiers.name, name)))[0]

export const notifierById = async (db: Db, id: number): Promise<Notifier | undefined> =>
  (await db.select().from(backupNotifiers).where(eq(backupNotifiers.id, id)))[0]

/** Fails with `notifier.exists`. Secrets in `config` must be sealed before. */
export const insertNotifier = (db: Db, notifier: NewNotifier): Promise<Notifier> =>
  insertNamed(db, 'notifier', notifier.name, (tx) => findNotifier(tx, notifier.name), (tx) => tx.insert(backupNotifiers).values(notifier).returning())

/** The changed row, or undefined when there is none. */
export const updateNotifier = async (db: Db, id: number, set: Partial<NewNotifier>): Promise<Notifier | undefined> =>
  (await db.update(backupNotifiers).set({ ...set, updated_at: sql`now()` }).where(eq(backupNotifiers.id, id)).returning())[0]

/** Removes a notifier, and with it what it has not sent yet. */
export const removeNotifier = async (db: Db, id: number): Promise<Notifier | undefined> =>
  (await db.delete(backupNotifiers).where(eq(backupNotifiers.id, id)).returning())[0]

/** How many alerts of each notifier wait to be sent, and how many could not be. By id. */
export const alertCounts = async (db: Db): Promise<Map<number, { waiting: number; failed: number }>> => {
  const rows = await db.select({
    id: backupNotifications.notifier_id,
    waiting: sql<number>`(count(*) FILTER (WHERE status IN ('pending', 'sending')))::integer`,
    failed: sql<number>`(count(*) FILTER (WHERE status = 'failed'))::integer`,
    all: count(),
  }).from(backupNotifications).groupBy(backupNotifications.notifier_id)
  return new Map(rows.map(({ id, waiting, failed }) => [id, { waiting, failed }]))
}
