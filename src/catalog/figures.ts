import { sql } from './drizzle.js'
import type { Db } from './connect.js'
import { expired } from './queue.js'
import { backupExecutions, backupSchedules, backupWorkers, storageBackendConfigs } from './schema.js'

/** A schedule in numbers. Times are seconds since 1970, null for never. */
export interface ScheduleFigures {
  id: number
  name: string
  active: boolean
  last_status: string | null
  last_attempt: number | null
  next_run: number | null
  total: number
  successful: number
  failed: number
  /** The last good backup: when it was complete, how long it took (seconds), its bytes before and after compression. */
  last_success: number | null
  duration: number | null
  size: number | null
  stored: number | null
}

export interface StorageFigures {
  id: number
  name: string
  type: string
  active: boolean
  healthy: boolean
  last_check: number | null
  backups: number
  bytes: number
}

/** What monitoring wants to know of the catalog. */
export interface Figures {
  schedules: ScheduleFigures[]
  storages: StorageFigures[]
  queue: { pending: number; running: number; verifying: number; expired: number; workers: number }
}

const epoch = (column: string) => sql.raw(`extract(epoch FROM ${column})::double precision`)

/** Figures of everything, with three queries. */
export const readFigures = async (db: Db): Promise<Figures> => {
  const schedules = await db.execute<ScheduleFigures & Record<string, unknown>>(sql`
    SELECT s.id, s.name, s.is_active AS active, s.last_status, ${epoch('s.last_run_at')} AS last_attempt, ${epoch('s.next_run_at')} AS next_run,
      s.total_runs AS total, s.successful_runs AS successful, s.failed_runs AS failed,
      ${epoch('good.completed_at')} AS last_success, good.duration_seconds AS duration,
      good.size_bytes::double precision AS size, good.compressed_size_bytes::double precision AS stored
    FROM ${backupSchedules} s LEFT JOIN LATERAL (
      SELECT completed_at, duration_seconds, size_bytes, compressed_size_bytes FROM ${backupExecutions}
      WHERE schedule_id = s.id AND status IN ('completed', 'verifying', 'verified') AND copy_of IS NULL AND expiring_at IS NULL
      ORDER BY started_at DESC LIMIT 1) good ON true
    ORDER BY s.id`)
  const storages = await db.execute<StorageFigures & Record<string, unknown>>(sql`
    SELECT id, name, backend_type AS type, is_active AS active, is_healthy AS healthy, ${epoch('last_health_check')} AS last_check,
      total_backups AS backups, total_size_bytes::double precision AS bytes
    FROM ${storageBackendConfigs} ORDER BY id`)
  const [queue] = await db.execute<Figures['queue'] & Record<string, unknown>>(sql`
    SELECT count(*) FILTER (WHERE status = 'pending')::integer AS pending, count(*) FILTER (WHERE status = 'running')::integer AS running,
      count(*) FILTER (WHERE status = 'verifying')::integer AS verifying, count(*) FILTER (WHERE ${expired})::integer AS expired,
      (SELECT count(*)::integer FROM ${backupWorkers} WHERE ${backupWorkers.kind} = 'daemon' AND ${backupWorkers.lease_expires_at} > clock_timestamp()) AS workers
    FROM ${backupExecutions} WHERE status IN ('pending', 'running', 'verifying')`)
  return { schedules: [...schedules], storages: [...storages], queue: queue ?? { pending: 0, running: 0, verifying: 0, expired: 0, workers: 0 } }
}
