import { sql } from './drizzle.js'
import { bounded } from './bounded.js'
import type { Db } from './connect.js'
import { auditLogs, backupExecutions, backupSchedules } from './schema.js'

// What the health checks read, with few statements however many schedules and storages there are.

const PATIENCE = 15

const number = (name: string) => sql.raw(`${name}::double precision`)

/** Stored bytes of the newest good backup in each storage, by the storage's id. */
export const newestStoredSizes = async (db: Db): Promise<Map<number, number>> => {
  const rows = await db.execute<{ id: number; size: number }>(sql`
    SELECT s.id, ${number('newest.compressed_size_bytes')} AS size FROM storage_backend_configs s CROSS JOIN LATERAL (
      SELECT compressed_size_bytes FROM ${backupExecutions} WHERE storage_backend_id = s.id AND status IN ('completed', 'verified')
      ORDER BY started_at DESC LIMIT 1) newest
    WHERE s.is_active`)
  return new Map(rows.map(({ id, size }) => [id, size]))
}

/** When the run of each schedule that goes on now was begun, by the schedule's id. */
export const runningSchedules = async (db: Db): Promise<Map<number, Date>> => {
  const rows = await db.execute<{ id: number; began: number }>(sql`
    SELECT schedule_id AS id, (extract(epoch FROM max(coalesce(scheduled_for, started_at))) * 1000)::double precision AS began FROM ${backupExecutions}
    WHERE status IN ('running', 'verifying') AND copy_of IS NULL AND schedule_id IS NOT NULL GROUP BY schedule_id`)
  return new Map(rows.map(({ id, began }) => [id, new Date(began)]))
}

export interface BackupSize {
  schedule: number
  name: string
  execution: number
  backup_type: string
  /** Bytes of the plain streams. */
  size: number
}

/** The newest good backups of each active schedule, at most eleven of each, newest first; of the schedule's own type. */
export const recentSizes = async (db: Db): Promise<BackupSize[]> => [...await db.execute<BackupSize & Record<string, unknown>>(sql`
  SELECT s.id AS schedule, s.name, recent.id AS execution, s.backup_type, ${number('recent.size_bytes')} AS size FROM ${backupSchedules} s CROSS JOIN LATERAL (
    SELECT id, size_bytes, started_at FROM ${backupExecutions} WHERE schedule_id = s.id AND copy_of IS NULL AND backup_type = s.backup_type
      AND status IN ('completed', 'verifying', 'verified') ORDER BY started_at DESC LIMIT 11) recent
  WHERE s.is_active ORDER BY s.name, s.id, recent.started_at DESC`)]

export interface Failures {
  /** Runs that failed or were found damaged. */
  failed: number
  /** Runs that ended otherwise. */
  good: number
  /** Names of active schedules that have no good backup since a failure. */
  unresolved: string[]
}

/** Ends of runs in the last 7 days, copies too. */
export const recentFailures = (db: Db): Promise<Failures> =>
  bounded(db, PATIENCE, async (tx) => {
    const [counts] = await tx.execute<{ failed: number; good: number }>(sql`
      SELECT count(*) FILTER (WHERE status IN ('failed', 'corrupted'))::integer AS failed,
        count(*) FILTER (WHERE status IN ('completed', 'verifying', 'verified'))::integer AS good
      FROM ${backupExecutions} WHERE started_at > now() - interval '7 days' AND status IN ('failed', 'corrupted', 'completed', 'verifying', 'verified')`)
    const open = await tx.execute<{ name: string }>(sql`
      SELECT s.name FROM ${backupSchedules} s WHERE s.is_active AND EXISTS (
        SELECT FROM ${backupExecutions} bad WHERE bad.schedule_id = s.id AND bad.copy_of IS NULL AND bad.status IN ('failed', 'corrupted') AND bad.started_at > now() - interval '7 days'
          AND NOT EXISTS (SELECT FROM ${backupExecutions} good WHERE good.schedule_id = s.id AND good.copy_of IS NULL
            AND good.status IN ('completed', 'verifying', 'verified') AND good.started_at > bad.started_at))
      ORDER BY s.name`)
    return { failed: counts?.failed ?? 0, good: counts?.good ?? 0, unresolved: open.map(({ name }) => name) }
  })

/** Entries of the application's own audit trail in the last 24 h, by severity. */
export const seriousAuditLogs = (db: Db): Promise<{ high: number; critical: number }> =>
  bounded(db, PATIENCE, async (tx) => {
    const [row] = await tx.execute<{ high: number; critical: number }>(sql`
      SELECT count(*) FILTER (WHERE severity = 'high')::integer AS high, count(*) FILTER (WHERE severity = 'critical')::integer AS critical
      FROM ${auditLogs} WHERE severity IN ('high', 'critical') AND created_at > now() - interval '24 hours'`)
    return row ?? { high: 0, critical: 0 }
  })

export interface ReadBack {
  /** Good backups in storages that are switched on. */
  backups: number
  /** Those that were not read back for `days`. */
  unread: number
  /** Days since the longest unread one was read back, or made. */
  oldest: number | null
  /** Found damaged within 7 days. */
  damaged: number
  /** Damaged ones in all. */
  damagedEver: number
}

/** How long ago backups were read back. */
export const readBack = (db: Db, days: number): Promise<ReadBack> =>
  bounded(db, PATIENCE, async (tx) => {
    const [row] = await tx.execute<{ backups: number; unread: number; oldest: number | null; damaged: number; damaged_ever: number }>(sql`
      SELECT count(*) FILTER (WHERE good)::integer AS backups,
        count(*) FILTER (WHERE good AND seen < clock_timestamp() - make_interval(days => ${days}::integer))::integer AS unread,
        max(extract(epoch FROM clock_timestamp() - seen)) FILTER (WHERE good)::double precision / 86400 AS oldest,
        count(*) FILTER (WHERE NOT good AND seen > clock_timestamp() - interval '7 days')::integer AS damaged,
        count(*) FILTER (WHERE NOT good)::integer AS damaged_ever
      FROM (SELECT e.status <> 'corrupted' AS good, coalesce(e.verified_at, e.completed_at, e.started_at) AS seen
        FROM ${backupExecutions} e JOIN storage_backend_configs s ON s.id = e.storage_backend_id AND s.is_active
        WHERE e.status IN ('completed', 'verified', 'corrupted') AND e.checksum IS NOT NULL AND e.expiring_at IS NULL) listed`)
    return { backups: row?.backups ?? 0, unread: row?.unread ?? 0, oldest: row?.oldest ?? null, damaged: row?.damaged ?? 0, damagedEver: row?.damaged_ever ?? 0 }
  })
