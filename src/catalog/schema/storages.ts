import { sql } from 'drizzle-orm'
import { bigint, boolean, index, integer, pgTable, serial, text, uniqueIndex, varchar } from 'drizzle-orm/pg-core'
import { instant, json, references } from './columns.js'

export const storageBackendConfigs = pgTable('storage_backend_configs', {
  id: serial('id').primaryKey(),
  name: varchar('name', { length: 100 }).notNull(),
  backend_type: varchar('backend_type', { length: 20 }).notNull(),
  config_data: json('config_data').notNull(),
  is_active: boolean('is_active').notNull().default(true),
  is_healthy: boolean('is_healthy').notNull().default(true),
  last_health_check: instant('last_health_check'),
  health_check_message: varchar('health_check_message', { length: 500 }),
  total_backups: integer('total_backups').notNull().default(0),
  total_size_bytes: bigint('total_size_bytes', { mode: 'number' }).notNull().default(0),
  description: varchar('description', { length: 500 }),
  tags: json('tags'),
  created_at: instant('created_at').notNull().defaultNow(),
  updated_at: instant('updated_at'),
}, (table) => [
  index('ix_storage_backend_configs_backend_type').on(table.backend_type),
  index('ix_storage_backend_configs_name').on(table.name),
])

export const backupRetentionPolicies = pgTable('backup_retention_policies', {
  id: serial('id').primaryKey(),
  name: varchar('name', { length: 200 }).notNull(),
  storage_backend_id: integer('storage_backend_id').notNull(),
  backup_type: varchar('backup_type', { length: 20 }),
  retention_days: integer('retention_days').notNull().default(30),
  keep_daily_for_days: integer('keep_daily_for_days').notNull().default(7),
  keep_weekly_for_weeks: integer('keep_weekly_for_weeks').notNull().default(4),
  keep_monthly_for_months: integer('keep_monthly_for_months').notNull().default(12),
  keep_yearly_for_years: integer('keep_yearly_for_years').notNull().default(5),
  min_backups_to_keep: integer('min_backups_to_keep').notNull().default(3),
  is_active: boolean('is_active').notNull().default(true),
  last_cleanup_at: instant('last_cleanup_at'),
  total_cleanups: integer('total_cleanups').notNull().default(0),
  total_backups_deleted: integer('total_backups_deleted').notNull().default(0),
  total_space_freed_bytes: bigint('total_space_freed_bytes', { mode: 'number' }).notNull().default(0),
  policy_rules: json('policy_rules'),
  created_at: instant('created_at').notNull().defaultNow(),
  updated_at: instant('updated_at'),
}, (table) => [
  index('ix_backup_retention_policies_backup_type').on(table.backup_type),
  index('ix_backup_retention_policies_is_active').on(table.is_active),
  index('ix_backup_retention_policies_name').on(table.name),
  index('ix_backup_retention_policies_storage_backend_id').on(table.storage_backend_id),
  references('backup_retention_policies', table.storage_backend_id, () => storageBackendConfigs.id),
])

export const backupCleanupHistory = pgTable('backup_cleanup_history', {
  id: serial('id').primaryKey(),
  cleanup_id: varchar('cleanup_id', { length: 100 }).notNull(),
  retention_policy_id: integer('retention_policy_id').notNull(),
  storage_backend_id: integer('storage_backend_id').notNull(),
  triggered_by: varchar('triggered_by', { length: 100 }).notNull(),
  started_at: instant('started_at').notNull(),
  completed_at: instant('completed_at'),
  duration_seconds: integer('duration_seconds'),
  backups_evaluated: integer('backups_evaluated').notNull().default(0),
  backups_deleted: integer('backups_deleted').notNull().default(0),
  backups_kept: integer('backups_kept').notNull().default(0),
  space_freed_bytes: bigint('space_freed_bytes', { mode: 'number' }).notNull().default(0),
  deleted_backup_ids: json('deleted_backup_ids').notNull().default(sql`'[]'`),
  status: varchar('status', { length: 50 }).notNull(),
  error_message: text('error_message'),
  warnings: json('warnings'),
  created_at: instant('created_at').notNull().defaultNow(),
  updated_at: instant('updated_at'),
}, (table) => [
  uniqueIndex('ix_backup_cleanup_history_cleanup_id').on(table.cleanup_id),
  index('ix_backup_cleanup_history_retention_policy_id').on(table.retention_policy_id),
  index('ix_backup_cleanup_history_status').on(table.status),
  index('ix_backup_cleanup_history_storage_backend_id').on(table.storage_backend_id),
  references('backup_cleanup_history', table.retention_policy_id, () => backupRetentionPolicies.id),
  references('backup_cleanup_history', table.storage_backend_id, () => storageBackendConfigs.id),
])
