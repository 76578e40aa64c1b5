import { and, asc, count, eq, sql } from './drizzle.js'
import type { Db } from './connect.js'
import { insertNamed, onlyOne } from './names.js'
import { backupCleanupHistory, backupRetentionPolicies } from './schema.js'

export type PolicyRow = typeof backupRetentionPolicies.$inferSelect
export type NewPolicy = typeof backupRetentionPolicies.$inferInsert

// What is no policy any more, or never was one, stays in the table only because the history of its cleanups refers to it.
/** That a row is a policy that somebody gave and nobody removed. */
export const given = sql`coalesce(policy_rules::jsonb ->> 'removed_at', policy_rules::jsonb ->> 'automatic') IS NULL`

/** All policies, by name. */
export const listPolicies = (db: Db): Promise<PolicyRow[]> =>
  db.select().from(backupRetentionPolicies).where(given).orderBy(asc(backupRetentionPolicies.name), asc(backupRetentionPolicies.id))

/** The policy of exactly this name. Fails with `catalog.ambiguous`. */
export const findPolicy = async (db: Db, name: string): Promise<PolicyRow | undefined> =>
  onlyOne(await db.select().from(backupRetentionPolicies).where(and(eq(backupRetentionPolicies.name, name), given)), 'policy', name)

/** Fails with `policy.exists`. */
export const insertPolicy = (db: Db, policy: NewPolicy): Promise<PolicyRow> =>
  insertNamed(db, 'policy', policy.name, (tx) => findPolicy(tx, policy.name),
    (tx) => tx.insert(backupRetentionPolicies).values(policy).returning())

/** The changed row, or undefined when there is none. */
export const updatePolicy = async (db: Db, id: number, set: Partial<NewPolicy>): Promise<PolicyRow | undefined> =>
  (await db.update(backupRetentionPolicies).set({ ...set, updated_at: sql`now()` }).where(eq(backupRetentionPolicies.id, id)).returning())[0]

/** Removes a policy. With a history of cleanups its row stays, inactive and out of sight, because that history refers to it. */
export const removePolicy = async (db: Db, id: number): Promise<{ cleanups: number }> => {
  const [history] = await db.select({ n: count() }).from(backupCleanupHistory).where(eq(backupCleanupHistory.retention_policy_id, id))
  const cleanups = history?.n ?? 0
  if (cleanups === 0) await db.delete(backupRetentionPolicies).where(eq(backupRetentionPolicies.id, id))
  else await updatePolicy(db, id, { is_active: false, policy_rules: { removed_at: new Date().toISOString() } })
  return { cleanups }
}

/**
 * The row that cleanups of backups without a policy are recorded under, because the column must not be empty. It is inactive, named for
 * what it is, made when it is first needed, and decides nothing.
 */
export const placeholderPolicy = (db: Db, storage: { id: number; name: string }): Promise<PolicyRow> =>
  db.transaction(async (tx) => {
    await tx.execute(sql`SELECT pg_advisory_xact_lock(hashtext(${`backupd placeholder policy ${storage.id}`}))`)
    const [known] = await tx.select().from(backupRetentionPolicies)
      .where(and(eq(backupRetentionPolicies.storage_backend_id, storage.id), sql`policy_rules::jsonb ->> 'automatic' = 'true'`)).limit(1)
    if (known !== undefined) return known
    const [row] = await tx.insert(backupRetentionPolicies).values({
      name: `without a policy: ${storage.name}`, storage_backend_id: storage.id, is_active: false,
      keep_daily_for_days: 0, keep_weekly_for_weeks: 0, keep_monthly_for_months: 0, keep_yearly_for_years: 0,
      policy_rules: { automatic: true, note: 'Decides nothing. Cleanups of backups that no policy is about are recorded under it; their schedules say how long they are kept.' },
    }).returning()
    if (row === undefined) throw new Error('the placeholder of a policy was not stored')
    return row
  })
