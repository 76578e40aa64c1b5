import { asc, eq, or, sql } from './drizzle.js'
import type { Log } from '../log.js'
import { redact } from '../secret.js'
import type { Db } from './connect.js'
import { catalogReason } from './failures.js'
import { jsonList, jsonTexts } from './json.js'
import { notifyWork } from './notifications.js'
import { backupNotifications, backupNotifiers, backupSchedules } from './schema.js'
import { alertSeverities, type AlertEvent, type AlertSeverity } from './statuses.js'

export type NotifierRow = typeof backupNotifiers.$inferSelect

/** The same trouble under the same key is told again after so long. Seconds. */
export const REPEAT_AFTER = 6 * 3600

// An alert waits no longer than this for somebody else's lock; what it is told of must not wait for it.
const LOCK_TIMEOUT = '2s'
const LONGEST_TITLE = 200
const LONGEST_MESSAGE = 2_000

/** Of an execution, what an alert tells. */
export interface AlertExecution {
  id: number
  backup_id: string
  status: string
  [fact: string]: unknown
}

/** Something that people should hear of. All texts are cleaned of secrets and cut before they are stored. */
export interface Alert {
  event: AlertEvent
  severity: AlertSeverity
  schedule?: { id: number; name: string } | undefined
  /** With a storage and no schedule, a notifier limited to schedules hears of it when one of them writes there. */
  storage?: { id: number; name: string } | undefined
  execution?: AlertExecution | undefined
  /** One line. */
  title: string
  message: string
  details?: Record<string, unknown> | undefined
  /** Names the condition, such as `storage:7:unhealthy`; at most 200 characters are used. A notifier is told of a key once, and again after `repeatAfter`. */
  dedupKey: string
  /** Seconds, default `REPEAT_AFTER`; null: never again under this key. */
  repeatAfter?: number | null
  /** Key of the condition that is over (also of all keys that begin with it and `:`). Who was told of it hears of its end, whatever the severity. */
  resolves?: string
}

const rank = (severity: string): number => alertSeverities.findIndex((one) => one === severity)
const isRoutine = (event: AlertEvent): boolean => event === 'start' || event === 'success'

/** A notifier of this kind follows every run, so nothing that it is told is a repetition. */
const isPing = ({ type }: Pick<NotifierRow, 'type'>): boolean => type === 'healthchecks'

const pingEvents: readonly AlertEvent[] = ['start', 'success', 'failure', 'corruption']

// A filter that says nothing, or nothing that makes sense, lets through: one alert too many is better than silence.
const wantsEvent = (notifier: NotifierRow, event: AlertEvent): boolean => {
  const events = jsonTexts(notifier.events)
  if (events.length > 0) return events.includes(event)
  return isPing(notifier) ? pingEvents.includes(event) : !isRoutine(event)
}
const wantsSchedule = (notifier: NotifierRow, names: readonly string[]): boolean => {
  const wanted = jsonTexts(notifier.schedules)
  return jsonList(notifier.schedules).length === 0 || wanted.some((name) => names.includes(name))
}
const wantsSeverity = (notifier: NotifierRow, severity: AlertSeverity): boolean => rank(severity) >= rank(notifier.min_severity)

const schedulesOf = async (tx: Db, { schedule, storage }: Alert): Promise<string[]> => {
  if (schedule !== undefined) return [schedule.name]
  if (storage === undefined) return []
  const rows = await tx.select({ name: backupSchedules.name }).from(backupSchedules)
    .where(or(eq(backupSchedules.storage_backend_id, storage.id), eq(backupSchedules.copy_to, storage.id)))
  return rows.map(({ name }) => name)
}

const cleaned = (value: unknown): unknown => {
  if (typeof value === 'string') return redact(value)
  if (Array.isArray(value)) return value.map(cleaned)
  if (value instanceof Date) return value.toISOString()
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, cleaned(item)]))
}

const payloadOf = ({ event, severity, schedule, storage, execution, title, message, details }: Alert): Record<string, unknown> => ({
  event,
  severity,
  title: redact(title).replaceAll(/\s+/g, ' ').slice(0, LONGEST_TITLE),
  message: redact(message).slice(0, LONGEST_MESSAGE),
  schedule: schedule === undefined ? null : { id: schedule.id, name: schedule.name },
  storage: storage === undefined ? null : { id: storage.id, name: storage.name },
  execution: cleaned(execution ?? null),
  details: cleaned(details ?? {}),
})

const under = (key: string) => or(eq(backupNotifications.dedup_key, key), sql`starts_with(${backupNotifications.dedup_key}, ${`${key}:`})`)

/** Ends a condition: its key is free again, so that its return is told at once. The notifiers that were told of it. */
const close = async (tx: Db, key: string): Promise<Set<number>> => {
  const rows = await tx.update(backupNotifications)
    .set({ dedup_key: sql`'closed:' || ${backupNotifications.id} || ':' || ${backupNotifications.dedup_key}` })
    .where(under(key.slice(0, 200))).returning({ notifier: backupNotifications.notifier_id })
  return new Set(rows.map(({ notifier }) => notifier))
}

const enqueue = async (tx: Db, notifier: NotifierRow, alert: Alert, payload: Record<string, unknown>): Promise<boolean> => {
  const { event, severity, execution, repeatAfter = REPEAT_AFTER } = alert
  const each = isPing(notifier) && execution !== undefined ? `:execution:${execution.id}` : ''
  const fresh = { event, severity, payload, status: 'pending', attempts: 0, not_before: sql`clock_timestamp()`, created_at: sql`clock_timestamp()` } as const
  const insert = tx.insert(backupNotifications).values({ ...fresh, notifier_id: notifier.id, dedup_key: alert.dedupKey.slice(0, 200) + each })
  const rows = await (repeatAfter === null
    ? insert.onConflictDoNothing().returning({ id: backupNotifications.id })
    : insert.onConflictDoUpdate({
      target: [backupNotifications.notifier_id, backupNotifications.dedup_key],
      set: { ...fresh, worker_id: null, lease_expires_at: null, last_error: null, sent_at: null },
      setWhere: sql`${backupNotifications.created_at} <= clock_timestamp() - make_interval(secs => ${repeatAfter}::float8) AND ${backupNotifications.status} <> 'sending'`,
    }).returning({ id: backupNotifications.id }))
  return rows.length > 0
}

const queue = async (tx: Db, alert: Alert, onlyIfOpen: boolean): Promise<number> => {
  const told = alert.resolves === undefined ? new Set<number>() : await close(tx, alert.resolves)
  if (onlyIfOpen && told.size === 0) return 0
  const notifiers = await tx.select().from(backupNotifiers).where(eq(backupNotifiers.is_active, true)).orderBy(asc(backupNotifiers.id))
  if (notifiers.length === 0) return 0
  const schedules = await schedulesOf(tx, alert)
  const payload = payloadOf(alert)
  let queued = 0
  for (const notifier of notifiers) {
    if (!wantsEvent(notifier, alert.event)) continue
    if (!told.has(notifier.id) && !(wantsSchedule(notifier, schedules) && wantsSeverity(notifier, alert.severity))) continue
    if (await enqueue(tx, notifier, alert, payload)) queued += 1
  }
  if (queued > 0) await notifyWork(tx, { kind: 'alert', id: 0 })
  return queued
}

// In a savepoint of its own, so that whatever goes wrong here leaves the caller's transaction as it was.
const guarded = async (db: Db, alert: Alert, onlyIfOpen: boolean, log: Log | undefined): Promise<number> => {
  try {
    return await db.transaction(async (tx) => {
      const [before] = await tx.execute<{ value: string }>(sql`SELECT current_setting('lock_timeout') AS value`)
      await tx.execute(sql`SELECT set_config('lock_timeout', ${LOCK_TIMEOUT}, true)`)
      const queued = await queue(tx, alert, onlyIfOpen)
      await tx.execute(sql`SELECT set_config('lock_timeout', ${before?.value ?? '0'}, true)`)
      return queued
    })
  } catch (error) {
    log?.warn({ alert: alert.dedupKey, error: catalogReason(error) }, 'an alert could not be queued')
    return 0
  }
}

/**
 * Queues an alert for every notifier that wants it, in the caller's transaction (or in one of its own), and says for how many. It never
 * throws: what an alert tells of goes on whatever happens to the alert. The daemon sends it after the commit.
 */
export const raiseAlert = (db: Db, alert: Alert, log?: Log): Promise<number> => guarded(db, alert, false, log)

/**
 * The same for the end of a condition, which is told only when somebody was told of its beginning: it may be called at every look
 * at something that is well. `resolves` names the condition.
 */
export const resolveAlert = (db: Db, alert: Alert & { resolves: string }, log?: Log): Promise<number> => guarded(db, alert, true, log)
