import { and, asc, eq, inArray, lte, sql } from './drizzle.js'
import type { Db } from './connect.js'
import type { Notifier } from './notifiers.js'
import { backupNotifications, backupNotifiers } from './schema.js'
import type { NotificationStatus } from './statuses.js'

export type Notification = typeof backupNotifications.$inferSelect

/** A notification that this process has claimed, and where it goes. */
export interface Outgoing {
  notification: Notification
  notifier: Notifier
}

const now = sql`clock_timestamp()`
const instantIn = (milliseconds: number) => sql`clock_timestamp() + make_interval(secs => ${milliseconds / 1000}::float8)`
const asDate = (expression: ReturnType<typeof instantIn>): Date => expression as unknown as Date

const due = and(eq(backupNotifications.status, 'pending'), lte(backupNotifications.not_before, now))

/** What was being sent by a process that is gone waits again. */
const freeExpired = (tx: Db): Promise<unknown> =>
  tx.update(backupNotifications).set({ status: 'pending', worker_id: null, lease_expires_at: null })
    .where(and(eq(backupNotifications.status, 'sending'), lte(backupNotifications.lease_expires_at, now)))

/**
 * Takes the oldest notification that is due of one notifier that nothing is being sent to, for `lease` milliseconds. One at a time and in
 * order, so that a start is not told after the end. Undefined when there is none.
 */
export const claimNotification = (db: Db, worker: string, lease: number): Promise<Outgoing | undefined> =>
  db.transaction(async (tx) => {
    await freeExpired(tx)
    const [notifier] = await tx.select().from(backupNotifiers).where(and(
      eq(backupNotifiers.is_active, true),
      sql`EXISTS (SELECT FROM backup_notifications n WHERE n.notifier_id = ${backupNotifiers.id} AND n.status = 'pending' AND n.not_before <= clock_timestamp())`,
      sql`NOT EXISTS (SELECT FROM backup_notifications n WHERE n.notifier_id = ${backupNotifiers.id} AND n.status = 'sending')`,
    )).orderBy(asc(backupNotifiers.last_sent_at), asc(backupNotifiers.id)).limit(1).for('no key update', { skipLocked: true })
    if (notifier === undefined) return undefined
    // The lock is held: what another process has claimed for this notifier meanwhile is seen by a new statement, and only by that.
    const sending = await tx.select({ id: backupNotifications.id }).from(backupNotifications)
      .where(and(eq(backupNotifications.notifier_id, notifier.id), eq(backupNotifications.status, 'sending'))).limit(1)
    if (sending.length > 0) return undefined
    const [next] = await tx.select().from(backupNotifications)
      .where(and(eq(backupNotifications.notifier_id, notifier.id), due))
      .orderBy(asc(backupNotifications.id)).limit(1).for('update', { skipLocked: true })
    if (next === undefined) return undefined
    const [notification] = await tx.update(backupNotifications)
      .set({ status: 'sending', attempts: next.attempts + 1, worker_id: worker, lease_expires_at: asDate(instantIn(lease)) })
      .where(eq(backupNotifications.id, next.id)).returning()
    return notification === undefined ? undefined : { notification, notifier }
  })

const settle = async (db: Db, { notification, notifier }: Outgoing, set: Partial<Notification>, result: Partial<Notifier>): Promise<void> => {
  await db.transaction(async (tx) => {
    const rows = await tx.update(backupNotifications).set({ ...set, worker_id: null, lease_expires_at: null })
      .where(and(eq(backupNotifications.id, notification.id), eq(backupNotifications.status, 'sending'), eq(backupNotifications.worker_id, notification.worker_id ?? '')))
      .returning({ id: backupNotifications.id })
    if (rows.length > 0) await tx.update(backupNotifiers).set(result).where(eq(backupNotifiers.id, notifier.id))
  })
}

/** The receiver has it. */
export const markSent = (db: Db, outgoing: Outgoing): Promise<void> =>
  settle(db, outgoing, { status: 'sent', sent_at: asDate(now), last_error: null }, { last_status: 'sent', last_sent_at: asDate(now), last_error: null })

/** It is tried again after `wait` milliseconds. */
export const markDelayed = (db: Db, outgoing: Outgoing, error: string, wait: number): Promise<void> =>
  settle(db, outgoing, { status: 'pending', not_before: asDate(instantIn(wait)), last_error: error }, { last_status: 'retrying', last_error: error })

/** It is given up. */
export const markFailed = (db: Db, outgoing: Outgoing, error: string): Promise<void> =>
  settle(db, outgoing, { status: 'failed', last_error: error }, { last_status: 'failed', last_error: error })

/** Drops a notification that says nothing any more. */
export const markSkipped = (db: Db, outgoing: Outgoing, reason: string): Promise<void> =>
  settle(db, outgoing, { status: 'skipped', last_error: reason }, {})

/** Whether a later notification tells the same notifier of the same execution. */
export const isSuperseded = async (db: Db, { notification }: Outgoing): Promise<boolean> => {
  const rows = await db.execute(sql`SELECT 1 FROM backup_notifications one JOIN backup_notifications later ON later.notifier_id = one.notifier_id AND later.id > one.id
    AND later.payload #>> '{execution,id}' = one.payload #>> '{execution,id}' WHERE one.id = ${notification.id} LIMIT 1`)
  return rows.length > 0
}

/** Drops what a notifier has not been told, such as when it is switched off: it would be old news. */
export const dropWaiting = async (db: Db, notifierId: number, reason: string): Promise<number> =>
  (await db.update(backupNotifications).set({ status: 'skipped', last_error: reason })
    .where(and(eq(backupNotifications.notifier_id, notifierId), eq(backupNotifications.status, 'pending'))).returning({ id: backupNotifications.id })).length

/** Removes what ended more than `days` days ago. */
export const trimNotifications = async (db: Db, days: number): Promise<number> =>
  (await db.delete(backupNotifications).where(and(
    inArray(backupNotifications.status, ['sent', 'failed', 'skipped'] satisfies NotificationStatus[]),
    sql`${backupNotifications.created_at} < clock_timestamp() - make_interval(days => ${days})`,
  )).returning({ id: backupNotifications.id })).length
