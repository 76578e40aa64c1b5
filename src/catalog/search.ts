import { sql } from './drizzle.js'
import { bounded } from './bounded.js'
import type { Db } from './connect.js'
import { meilisearchKeys, meilisearchSecurityEvents, meilisearchUsageLogs } from './schema.js'

const PATIENCE = 15

/** Event written when a search key was used more often than allowed. */
export const USAGE_EVENT = 'usage_threshold_exceeded'

export interface KeyUse {
  key: number
  /** Uses in the last hour. */
  uses: number
}

const overLimit = (limit: number) => sql`
  SELECT key_id, count(*)::integer AS uses FROM ${meilisearchUsageLogs}
  WHERE created_at > now() - interval '1 hour' GROUP BY key_id HAVING count(*) > ${limit}::bigint`

/** Keys used more than `limit` times in the last hour, the most used first. */
export const busySearchKeys = (db: Db, limit: number): Promise<KeyUse[]> =>
  bounded(db, PATIENCE, async (tx) => [...await tx.execute<KeyUse & Record<string, unknown>>(sql`SELECT key_id AS key, uses FROM (${overLimit(limit)}) busy ORDER BY uses DESC, key_id`)])

/** Writes an event for each key over the limit that has had none within the last hour. Gives their number. */
export const recordBusyKeys = (db: Db, limit: number): Promise<number> =>
  bounded(db, PATIENCE, async (tx) => {
    // Two that write at a time would both find none.
    await tx.execute(sql`SELECT pg_advisory_xact_lock(hashtext('backupd search key usage'))`)
    const written = await tx.execute(sql`
      INSERT INTO ${meilisearchSecurityEvents} (key_id, event_type, severity, description, event_metadata, automated, created_at)
      SELECT key_id, ${USAGE_EVENT}, CASE WHEN uses > 10 * ${limit}::bigint THEN 'critical' ELSE 'warning' END,
        'used ' || uses || ' times within an hour; the limit is ' || ${limit}::bigint,
        json_build_object('uses', uses, 'limit', ${limit}::bigint, 'window_seconds', 3600, 'detected_by', 'backupd'), true, now()
      FROM (${overLimit(limit)}) busy
      WHERE NOT EXISTS (SELECT FROM ${meilisearchSecurityEvents} told WHERE told.key_id = busy.key_id AND told.event_type = ${USAGE_EVENT}
        AND told.automated AND told.created_at > now() - interval '1 hour')
      RETURNING id`)
    return written.length
  })

export interface ActiveKeys {
  active: number
  /** Ids of those that have expired and are still active; at most ten. */
  expired: number[]
  expiredCount: number
  /** Ids of those that expire within the time; at most ten. */
  expiring: number[]
  expiringCount: number
}

/** Search keys that are switched on and not revoked, and when they expire. */
export const searchKeyExpiry = (db: Db, days: number): Promise<ActiveKeys> =>
  bounded(db, PATIENCE, async (tx) => {
    const usable = sql`is_active AND revoked_at IS NULL`
    const near = sql`expires_at <= now() + make_interval(days => ${days}::integer)`
    const [counts] = await tx.execute<{ active: number; expired: number; expiring: number }>(sql`
      SELECT count(*)::integer AS active, count(*) FILTER (WHERE expires_at <= now())::integer AS expired,
        count(*) FILTER (WHERE expires_at > now() AND ${near})::integer AS expiring
      FROM ${meilisearchKeys} WHERE ${usable}`)
    const { active, expired, expiring } = counts ?? { active: 0, expired: 0, expiring: 0 }
    if (expired + expiring === 0) return { active, expired: [], expiredCount: 0, expiring: [], expiringCount: 0 }
    const ids = async (which: ReturnType<typeof sql>): Promise<number[]> =>
      (await tx.execute<{ id: number }>(sql`SELECT id FROM ${meilisearchKeys} WHERE ${usable} AND ${which} ORDER BY expires_at, id LIMIT 10`)).map(({ id }) => id)
    return {
      active, expiredCount: expired, expiringCount: expiring,
      expired: await ids(sql`expires_at <= now()`), expiring: await ids(sql`expires_at > now() AND ${near}`),
    }
  })
