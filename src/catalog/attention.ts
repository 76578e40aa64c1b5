import { sql, type SQL } from './drizzle.js'
import type { Db } from './connect.js'
import { due, expired } from './queue.js'
import { expiredRecovery, waitingRecovery } from './recoveries.js'
import { backupExecutions, backupSchedules, recoveryExecutions } from './schema.js'
import { needsScheduler } from './schedules.js'

/** What a daemon has to do, found with one query, because it is asked every few seconds by every daemon. */
export interface Attention {
  /** The database's clock. */
  now: Date
  /** How long the database server has been up, milliseconds: after a restart everybody's leases are late. */
  serverUptime: number
  schedules: boolean
  /** Executions that may begin. */
  pending: boolean
  /** Restores that may begin. */
  recoveries: boolean
  expired: boolean
  expiredRecoveries: boolean
  /** Milliseconds to the next run of a schedule, or to the next execution that waits for its time; null when nothing is planned. */
  nextIn: number | null
}

const milliseconds = (interval: SQL): SQL => sql`(extract(epoch FROM ${interval}) * 1000)::double precision`

/** Looks around in the catalog. */
export const lookAround = async (db: Db): Promise<Attention> => {
  const [row] = await db.execute<{ now: number; uptime: number; schedules: boolean; pending: boolean; recoveries: boolean; expired: boolean; expired_recoveries: boolean; next_in: number | null }>(sql`
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::double precision AS now,
      ${milliseconds(sql`clock_timestamp() - pg_postmaster_start_time()`)} AS uptime,
      EXISTS (SELECT FROM ${backupSchedules} WHERE ${needsScheduler}) AS schedules,
      EXISTS (SELECT FROM ${backupExecutions} WHERE status = 'pending' AND attempt IS NOT NULL AND ${due}) AS pending,
      EXISTS (SELECT FROM ${recoveryExecutions} WHERE ${waitingRecovery}) AS recoveries,
      EXISTS (SELECT FROM ${backupExecutions} WHERE ${expired}) AS expired,
      EXISTS (SELECT FROM ${recoveryExecutions} WHERE ${expiredRecovery}) AS expired_recoveries,
      ${milliseconds(sql`least(
        (SELECT min(next_run_at) FROM ${backupSchedules} WHERE is_active AND next_run_at > clock_timestamp()),
        (SELECT min(not_before) FROM ${backupExecutions} WHERE status = 'pending' AND attempt IS NOT NULL AND not_before > clock_timestamp())
      ) - clock_timestamp()`)} AS next_in`)
  if (row === undefined) throw new Error('the catalog gave no answer')
  return {
    now: new Date(row.now),
    serverUptime: row.uptime,
    schedules: row.schedules,
    pending: row.pending,
    recoveries: row.recoveries,
    expired: row.expired,
    expiredRecoveries: row.expired_recoveries,
    nextIn: row.next_in,
  }
}

/** The database's clock. */
export const databaseTime = async (db: Db): Promise<Date> => {
  const [row] = await db.execute<{ now: number }>(sql`SELECT (extract(epoch FROM clock_timestamp()) * 1000)::double precision AS now`)
  if (row === undefined) throw new Error('the catalog gave no answer')
  return new Date(row.now)
}
