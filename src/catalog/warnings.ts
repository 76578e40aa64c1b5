import { eq, sql, type SQL } from './drizzle.js'
import type { Db } from './connect.js'
import { backupExecutions } from './schema.js'
import { jsonText } from './schema/columns.js'

/**
 * The warnings of an execution's row with `more` behind them, each once. Written in SQL, because the scheduler adds some while a
 * worker runs and neither may lose the other's. The column may be `json` and hold anything.
 */
export const withWarnings = (more: readonly string[]): SQL => sql`(
  SELECT coalesce(jsonb_agg(kept.item ORDER BY kept.place), '[]') FROM (
    SELECT item, min(place) AS place FROM jsonb_array_elements(
      CASE WHEN jsonb_typeof(${backupExecutions.warnings}::jsonb) = 'array' THEN ${backupExecutions.warnings}::jsonb ELSE '[]' END || ${jsonText(more)}::text::jsonb
    ) WITH ORDINALITY AS list (item, place) GROUP BY item) AS kept)`

/** Adds a warning to an execution, whoever works on it. */
export const addWarning = async (db: Db, id: number, warning: string): Promise<void> => {
  await db.update(backupExecutions).set({ warnings: withWarnings([warning]) }).where(eq(backupExecutions.id, id))
}
