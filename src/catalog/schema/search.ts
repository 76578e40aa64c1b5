import { sql, boolean, index, integer, pgTable, serial, text, unique, varchar } from '../drizzle.js'
import { instant, json, references } from './columns.js'
import { projects, users } from './outside.js'

export const meilisearchKeys = pgTable('meilisearch_keys', {
  id: serial('id').primaryKey(),
  project_id: integer('project_id').notNull(),
  key_uid: varchar('key_uid', { length: 256 }).notNull(),
  key_type: varchar('key_type', { length: 50 }).notNull(),
  key_name: varchar('key_name', { length: 255 }),
  key_description: text('key_description'),
  actions: json('actions'),
  indexes: json('indexes'),
  expires_at: instant('expires_at'),
  is_active: boolean('is_active').notNull().default(true),
  revoked_at: instant('revoked_at'),
  revoked_reason: varchar('revoked_reason', { length: 255 }),
  usage_count: integer('usage_count').notNull().default(0),
  last_used_at: instant('last_used_at'),
  created_at: instant('created_at').notNull().defaultNow(),
  updated_at: instant('updated_at').notNull().defaultNow(),
}, (table) => [
  index('ix_meilisearch_keys_expires_at').on(table.expires_at),
  index('ix_meilisearch_keys_is_active').on(table.is_active),
  index('ix_meilisearch_keys_key_type').on(table.key_type),
  index('ix_meilisearch_keys_project_id').on(table.project_id),
  references('meilisearch_keys', table.project_id, () => projects.id, 'cascade'),
  unique('meilisearch_keys_key_uid_key').on(table.key_uid),
])

export const meilisearchSecurityEvents = pgTable('meilisearch_security_events', {
  id: serial('id').primaryKey(),
  key_id: integer('key_id'),
  event_type: varchar('event_type', { length: 100 }).notNull(),
  severity: varchar('severity', { length: 20 }).notNull(),
  description: text('description').notNull(),
  event_metadata: json('event_metadata').notNull().default(sql`'{}'`),
  source_ip: varchar('source_ip', { length: 45 }),
  user_id: integer('user_id'),
  automated: boolean('automated').notNull().default(false),
  created_at: instant('created_at').notNull().defaultNow(),
}, (table) => [
  index('ix_meilisearch_security_events_created_at').on(table.created_at),
  index('ix_meilisearch_security_events_event_type').on(table.event_type),
  index('ix_meilisearch_security_events_key_id').on(table.key_id),
  index('ix_meilisearch_security_events_severity').on(table.severity),
  index('ix_meilisearch_security_events_user_id').on(table.user_id),
  references('meilisearch_security_events', table.key_id, () => meilisearchKeys.id),
  references('meilisearch_security_events', table.user_id, () => users.id),
])

export const meilisearchUsageLogs = pgTable('meilisearch_usage_logs', {
  id: serial('id').primaryKey(),
  key_id: integer('key_id').notNull(),
  operation: varchar('operation', { length: 100 }).notNull(),
  index_name: varchar('index_name', { length: 255 }).notNull(),
  query: text('query'),
  filters: json('filters'),
  result_count: integer('result_count'),
  response_time_ms: integer('response_time_ms'),
  success: boolean('success').notNull().default(true),
  error_message: text('error_message'),
  ip_address: varchar('ip_address', { length: 45 }),
  user_agent: text('user_agent'),
  request_id: varchar('request_id', { length: 128 }),
  created_at: instant('created_at').notNull().defaultNow(),
}, (table) => [
  index('ix_meilisearch_usage_logs_created_at').on(table.created_at),
  index('ix_meilisearch_usage_logs_key_created').on(table.key_id, table.created_at),
  index('ix_meilisearch_usage_logs_key_id').on(table.key_id),
  index('ix_meilisearch_usage_logs_operation').on(table.operation),
  index('ix_meilisearch_usage_logs_success').on(table.success),
  references('meilisearch_usage_logs', table.key_id, () => meilisearchKeys.id),
])
