import { sql, bigint, boolean, index, integer, pgTable, serial, text, uniqueIndex, varchar } from '../drizzle.js'
import { instant, json, references } from './columns.js'

/** Databases to back up. `connection` holds `{ url, password? }`, each text, a reference, or sealed. */
export const backupSources = pgTable('backup_sources', {
  id: serial('id').primaryKey(),
  name: varchar('name', { length: 200 }).notNull(),
  connection: json('connection').notNull(),
  description: varchar('description', { length: 1000 }),
  created_at: instant('created_at').notNull().defaultNow(),
  updated_at: instant('updated_at'),
}, (table) => [uniqueIndex('ix_backup_sources_name').on(table.name)])

/** Public keys that backups are encrypted to. */
export const backupKeys = pgTable('backup_keys', {
  id: serial('id').primaryKey(),
  name: varchar('name', { length: 200 }).notNull(),
  recipient: text('recipient').notNull(),
  fingerprint: varchar('fingerprint', { length: 64 }).notNull(),
  created_at: instant('created_at').notNull().defaultNow(),
  retired_at: instant('retired_at'),
}, (table) => [
  uniqueIndex('ix_backup_keys_name').on(table.name),
  uniqueIndex('ix_backup_keys_recipient').on(table.recipient),
])

/** Processes that take work; a row whose lease has run out is a process that died or froze. */
export const backupWorkers = pgTable('backup_workers', {
  id: text('id').primaryKey(),
  kind: varchar('kind', { length: 20 }).notNull(),
  host: varchar('host', { length: 255 }).notNull(),
  pid: integer('pid').notNull(),
  version: varchar('version', { length: 50 }).notNull(),
  started_at: instant('started_at').notNull().defaultNow(),
  heartbeat_at: instant('heartbeat_at').notNull().defaultNow(),
  lease_expires_at: instant('lease_expires_at').notNull(),
  state: varchar('state', { length: 20 }).notNull(),
  details: json('details'),
}, (table) => [index('ix_backup_workers_lease_expires_at').on(table.lease_expires_at)])

/** Where the chain of the audit trail ends: one row, so that the removal of the newest entries shows too. */
export const backupAuditChain = pgTable('backup_audit_chain', {
  id: integer('id').primaryKey(),
  seq: bigint('seq', { mode: 'number' }).notNull(),
  hash: varchar('hash', { length: 64 }).notNull(),
  updated_at: instant('updated_at').notNull().defaultNow(),
})

/** Where alerts go: one row per channel. `config` is of the kind's own shape, its secrets sealed; a filter that is null lets everything through. */
export const backupNotifiers = pgTable('backup_notifiers', {
  id: serial('id').primaryKey(),
  name: varchar('name', { length: 200 }).notNull(),
  type: varchar('type', { length: 20 }).notNull(),
  config: json('config').notNull(),
  /** Names of schedules. */
  schedules: json('schedules'),
  /** Names of events. */
  events: json('events'),
  min_severity: varchar('min_severity', { length: 20 }).notNull().default('info'),
  is_active: boolean('is_active').notNull().default(true),
  description: varchar('description', { length: 1000 }),
  last_sent_at: instant('last_sent_at'),
  last_status: varchar('last_status', { length: 50 }),
  last_error: text('last_error'),
  created_at: instant('created_at').notNull().defaultNow(),
  updated_at: instant('updated_at'),
}, (table) => [uniqueIndex('ix_backup_notifiers_name').on(table.name)])

/** Alerts on their way: written in the transaction of what they tell, sent afterwards by any daemon, each once per notifier and `dedup_key`. */
export const backupNotifications = pgTable('backup_notifications', {
  id: serial('id').primaryKey(),
  notifier_id: integer('notifier_id').notNull(),
  event: varchar('event', { length: 50 }).notNull(),
  severity: varchar('severity', { length: 20 }).notNull(),
  dedup_key: varchar('dedup_key', { length: 300 }).notNull(),
  payload: json('payload').notNull(),
  status: varchar('status', { length: 20 }).notNull(),
  attempts: integer('attempts').notNull().default(0),
  not_before: instant('not_before').notNull().defaultNow(),
  worker_id: text('worker_id'),
  lease_expires_at: instant('lease_expires_at'),
  last_error: text('last_error'),
  created_at: instant('created_at').notNull().defaultNow(),
  sent_at: instant('sent_at'),
}, (table) => [
  uniqueIndex('ix_backup_notifications_dedup').on(table.notifier_id, table.dedup_key),
  index('ix_backup_notifications_due').on(table.not_before).where(sql`status = 'pending'`),
  references('backup_notifications', table.notifier_id, () => backupNotifiers.id, 'cascade'),
])
