import { randomBytes } from 'node:crypto'
import { eq, sql } from './drizzle.js'
import type { Db } from './connect.js'
import { jsonList, jsonObject } from './json.js'
import { backupHealthChecks, backupWorkers } from './schema.js'
import type { CheckType, HealthStatus } from './statuses.js'

/** Rows of ours; other programs may write into the table too. */
const PREFIX = 'backupd:'
const LOCK = sql`SELECT pg_advisory_xact_lock(hashtext('backupd health round'))`

/** How long results are kept, and how many at most. */
export const keptDays = 7
export const keptRows = 50_000

/** One time that all checks are made, for all daemons. Its row comes before those of its results. */
export interface Round {
  id: number
  /** Part of the `check_id` of its results. */
  key: string
}

/** A result as its row holds it. */
export interface RecordedCheck {
  check: string
  type: CheckType
  target: { type: string; id: number | null } | null
  /** Seconds since it was found, by the database's clock. */
  age: number
  status: HealthStatus
  score: number
  findings: { subject: string; level: string; message: string; advice?: string }[]
  metrics: Record<string, unknown>
}

export type NewCheck = Omit<RecordedCheck, 'age'> & {
  /** Seconds. */
  duration: number
}

const results = sql`${backupHealthChecks.check_results}::jsonb`
const isRound = sql`${backupHealthChecks.target_type} = 'round' AND ${backupHealthChecks.check_id} LIKE ${`${PREFIX}round:%`}`
const age = sql<number>`extract(epoch FROM clock_timestamp() - ${backupHealthChecks.checked_at})::double precision`

/**
 * Takes the next round for `worker` when it is due: `interval` seconds after the last one began, with a tenth less so that beats need not
 * be exact. As long as the worker of the last round lives, it is the one to go on, so that results of this machine and that do not take turns;
 * others take over when it is late by half. Undefined when none is due. Exactly one of any number of workers gets a round.
 */
export const claimRound = (db: Db, worker: string, interval: number): Promise<Round | undefined> =>
  db.transaction(async (tx) => {
    await tx.execute(LOCK)
    const [last] = await tx.select({
      id: backupHealthChecks.id, age, worker: sql<string | null>`${results} ->> 'worker'`, finished: sql<boolean>`coalesce((${results} ->> 'finished')::boolean, false)`,
      alive: sql<boolean>`EXISTS (SELECT FROM ${backupWorkers} w WHERE w.id = ${results} ->> 'worker' AND w.lease_expires_at > clock_timestamp())`,
    }).from(backupHealthChecks).where(isRound).orderBy(sql`id DESC`).limit(1)
    if (last !== undefined) {
      const patience = last.worker === worker || !last.alive ? 0.9 * interval : 1.5 * interval
      // A round in the future says that the database's clock was put back.
      if (last.age >= 0 && last.age < patience) return undefined
      if (!last.finished) {
        await tx.update(backupHealthChecks).set({ status: 'error', health_score: 0, issues_found: ['the round was not finished'], updated_at: sql`clock_timestamp()` })
          .where(eq(backupHealthChecks.id, last.id))
      }
    }
    const key = `${new Date().toISOString().replace(/[-:]|\.\d+/g, '')}-${randomBytes(4).toString('hex')}`
    const [row] = await tx.insert(backupHealthChecks).values({
      check_id: `${PREFIX}round:${key}`, check_type: 'system', target_type: 'round', checked_at: sql`clock_timestamp()`, status: 'healthy',
      check_results: { worker, finished: false, round: key }, issues_found: [], recommendations: [],
    }).returning({ id: backupHealthChecks.id })
    return row === undefined ? undefined : { id: row.id, key }
  })

/** The newest round that was finished, and how many seconds ago it began. */
export const lastRound = async (db: Db): Promise<(Round & { age: number; worker: string }) | undefined> => {
  const [row] = await db.select({ id: backupHealthChecks.id, age, found: backupHealthChecks.check_results }).from(backupHealthChecks)
    .where(sql`${isRound} AND ${results} ->> 'finished' = 'true'`).orderBy(sql`id DESC`).limit(1)
  if (row === undefined) return undefined
  const { round, worker } = jsonObject(row.found)
  return { id: row.id, key: String(round), age: row.age, worker: String(worker) }
}

const findingsOf = (value: unknown): RecordedCheck['findings'] => jsonList(value).map((item) => {
  const { subject, level, message, advice } = jsonObject(item)
  return { subject: String(subject), level: String(level), message: String(message), ...(typeof advice === 'string' ? { advice } : {}) }
})

/** The results of a round, in the order in which they were recorded. */
export const resultsOf = async (db: Db, round: Round): Promise<RecordedCheck[]> => {
  const rows = await db.select({ row: backupHealthChecks, age }).from(backupHealthChecks)
    .where(sql`${backupHealthChecks.id} > ${round.id} AND ${backupHealthChecks.check_id} LIKE ${`${PREFIX}%:${round.key}`}`).orderBy(backupHealthChecks.id)
  return rows.map(({ row, age: seconds }) => {
    const { check, findings } = jsonObject(row.check_results)
    return {
      check: String(check), type: row.check_type as CheckType, age: seconds, status: row.status as HealthStatus, score: row.health_score ?? 0,
      target: row.target_type === null ? null : { type: row.target_type, id: row.target_id }, findings: findingsOf(findings), metrics: jsonObject(row.metrics),
    }
  })
}

/** What tells results of one round apart, and finds the same in another. */
export const resultName = ({ check, target }: Pick<RecordedCheck, 'check' | 'target'>): string =>
  target === null ? check : `${check}:${target.type}-${target.id ?? 'default'}`

/** Writes the results of a round and ends it. False when the round's row is gone. */
export const finishRound = async (tx: Db, round: Round, worker: string, checks: readonly NewCheck[], overall: HealthStatus, duration: number): Promise<boolean> => {
  const rows = checks.map((one) => ({
    check_id: `${PREFIX}${resultName(one)}:${round.key}`, check_type: one.type, target_id: one.target?.id ?? null, target_type: one.target?.type ?? null,
    checked_at: sql`clock_timestamp()`, check_duration_seconds: one.duration, status: one.status, health_score: one.score,
    check_results: { check: one.check, round: round.key, findings: one.findings },
    issues_found: one.findings.filter(({ level }) => level !== 'healthy').map(({ subject, message }) => `${subject}: ${message}`),
    recommendations: [...new Set(one.findings.flatMap(({ advice }) => advice ?? []))],
    metrics: one.metrics,
  }))
  // The protocol takes 65,535 values a statement.
  for (let at = 0; at < rows.length; at += 500) await tx.insert(backupHealthChecks).values(rows.slice(at, at + 500))
  const bad = checks.filter(({ status }) => status !== 'healthy')
  const ended = await tx.update(backupHealthChecks).set({
    status: overall, health_score: checks.length === 0 ? 1 : Math.min(...checks.map(({ score }) => score)), check_duration_seconds: duration, updated_at: sql`clock_timestamp()`,
    check_results: { worker, finished: true, round: round.key, checks: checks.length, healthy: checks.length - bad.length },
    issues_found: bad.map(resultName), metrics: { checks: checks.length, not_healthy: bad.length },
  }).where(eq(backupHealthChecks.id, round.id)).returning({ id: backupHealthChecks.id })
  return ended.length > 0
}

/** Removes results that are older than `days` or more than `rows`, but never those from `round` on. Gives their number. */
export const trimHealth = async (db: Db, round: Round, { days = keptDays, rows = keptRows } = {}): Promise<number> => {
  const removed = await db.execute(sql`
    WITH ours AS (SELECT id, checked_at, row_number() OVER (ORDER BY id DESC) AS place FROM ${backupHealthChecks} WHERE check_id LIKE ${`${PREFIX}%`}),
    old AS (SELECT id FROM ours WHERE id < ${round.id} AND (checked_at < clock_timestamp() - make_interval(days => ${days}::integer) OR place > ${rows}::bigint) LIMIT 100000),
    gone AS (DELETE FROM ${backupHealthChecks} USING old WHERE ${backupHealthChecks.id} = old.id RETURNING 1)
    SELECT count(*)::integer AS count FROM gone`)
  return Number(removed[0]?.['count'] ?? 0)
}
