import type { Catalog, Db } from '../catalog/connect.js'
import { catalogReason } from '../catalog/failures.js'
import { claimRound, finishRound, lastRound, resultName, resultsOf, trimHealth, type NewCheck, type RecordedCheck, type Round } from '../catalog/health.js'
import { recordBusyKeys } from '../catalog/search.js'
import type { HealthStatus } from '../catalog/statuses.js'
import { recordStorageHealth } from '../catalog/storages.js'
import { worst, type Finding, type HealthContext, type Level } from '../health/check.js'
import { checks, runChecks, type CheckResult } from '../health/registry.js'
import { redact } from '../secret.js'
import type { Environment } from './environment.js'
import { healthContext } from './health.js'
import { tellOfHealth } from './alerts/health.js'

/** Where removing is not allowed each probe leaves an object behind, so that one a day has to do. Milliseconds. */
const RARELY = 86_400_000
const MOST_NAMED = 5

const scores: Record<Level, number> = { healthy: 1, warning: 0.5, critical: 0 }
const highest: Record<Level, number> = { healthy: 1, warning: 0.7, critical: 0.3 }

/** From 0 to 1: the mean of the findings' scores, but at most 0.7 with a warning, 0.3 with a critical one; 0 for a check that broke. */
export const scoreOf = (findings: readonly Pick<Finding, 'level'>[], broken: boolean): number => {
  if (broken) return 0
  if (findings.length === 0) return 1
  const mean = findings.reduce((sum, { level }) => sum + scores[level], 0) / findings.length
  return Math.round(Math.min(mean, highest[worst(findings.map(({ level }) => level))]) * 100) / 100
}

/** Findings in one sentence: the bad ones, or when there is none all. */
export const sentence = (findings: readonly { subject: string; level: string; message: string }[]): string => {
  const bad = findings.filter(({ level }) => level !== 'healthy')
  const told = (bad.length > 0 ? bad : findings).map(({ subject, message }) => `${subject}: ${message}`)
  return told.length > MOST_NAMED ? `${told.slice(0, MOST_NAMED).join('; ')}; and ${told.length - MOST_NAMED} more` : told.join('; ')
}

/** A check's findings as the rows they become: one for each storage, schedule and source, and one for the rest. */
export const rowsOf = ({ check, findings, broken, duration }: CheckResult): NewCheck[] => {
  const type = checks.find(({ name }) => name === check)?.type ?? 'system'
  const groups = new Map<string, Finding[]>()
  for (const finding of findings) {
    const name = resultName({ check, target: finding.target ?? null })
    groups.set(name, [...(groups.get(name) ?? []), finding])
  }
  return [...groups.values()].map((group) => {
    const status: HealthStatus = broken ? 'error' : worst(group.map(({ level }) => level))
    return {
      check, type, status, score: scoreOf(group, broken), duration: duration / 1000, target: group[0]?.target ?? null,
      findings: group.map(({ subject, level, message, advice }) => ({ subject, level, message: redact(message), ...(advice === undefined ? {} : { advice }) })),
      metrics: Object.assign({}, ...group.map(({ metrics }) => metrics ?? {})) as Record<string, unknown>,
    }
  })
}

// What another machine found out about itself says nothing about this one.
const ofMachine = (name: string): boolean => checks.find((check) => check.name === name)?.scope === 'machine'
const hostOf = (worker: string): string => worker.split(':').slice(0, -2).join(':')

/** A result that is not what it was in the round before. */
export interface Change {
  before: RecordedCheck | undefined
  /** Undefined: what was told of then is not any more. */
  now: NewCheck | undefined
}

/** What is to be told of: results that became bad, worse or good again. What was never seen before was good. */
export const changesOf = (before: readonly RecordedCheck[], now: readonly NewCheck[]): Change[] => {
  const earlier = new Map(before.map((one) => [resultName(one), one]))
  const names = new Set(now.map(resultName))
  return [
    ...now.flatMap((one): Change[] => {
      const was = earlier.get(resultName(one))
      return one.status === (was?.status ?? 'healthy') ? [] : [{ before: was, now: one }]
    }),
    ...before.flatMap((was): Change[] => (names.has(resultName(was)) || was.status === 'healthy' ? [] : [{ before: was, now: undefined }])),
  ]
}

/** Whether probes may be written, by what was seen in the round before. */
const probingAfter = (before: readonly RecordedCheck[]): HealthContext['probing'] => (row) => {
  const seen = before.find(({ check, target }) => check === 'storages' && target?.id === row.id)?.metrics
  const probedAt = typeof seen?.['probed_at'] === 'string' ? Date.parse(seen['probed_at']) : NaN
  const stays = seen?.['remove'] === 'denied' && Math.abs(Date.now() - probedAt) < RARELY
  if (!stays) return { write: true }
  return { write: false, seen: Object.fromEntries(['probed_at', 'connect', 'write', 'read', 'list', 'remove'].flatMap((key) => (typeof seen?.[key] === 'string' ? [[key, seen[key]]] : []))) as Finding['metrics'] }
}

/** Whether probes may be written, by what the last recorded round saw. */
export const probingNow = async (db: Db): Promise<HealthContext['probing']> => {
  const last = await lastRound(db)
  return probingAfter(last === undefined ? [] : await resultsOf(db, last))
}

// Notes in each storage's row what was found, for whoever reads the shared table.
const recordStorages = async (tx: Db, rows: readonly NewCheck[]): Promise<void> => {
  for (const { check, target, status, findings } of rows) {
    if (check === 'storages' && target?.type === 'storage' && target.id !== null) await recordStorageHealth(tx, target.id, status === 'healthy' || status === 'warning', sentence(findings))
  }
}

/** The worst of all; what could not be checked is worse than a warning. */
export const overallOf = (rows: readonly Pick<NewCheck, 'status'>[]): HealthStatus =>
  rows.some(({ status }) => status === 'critical') ? 'critical' : rows.some(({ status }) => status === 'error') ? 'error' : rows.some(({ status }) => status === 'warning') ? 'warning' : 'healthy'

const record = async (env: Environment, { db }: Catalog, round: Round, before: readonly RecordedCheck[], results: readonly CheckResult[], duration: number): Promise<void> => {
  const rows = results.flatMap(rowsOf)
  const changes = changesOf(before, rows)
  await db.transaction(async (tx) => {
    await recordStorages(tx, rows)
    await finishRound(tx, round, env.workerId, rows, overallOf(rows), duration)
    await tellOfHealth(env, tx, rows, before)
  })
  for (const { before: was, now } of changes) {
    const { findings, status } = now ?? { findings: was?.findings ?? [], status: 'healthy' }
    env.log[status === 'healthy' ? 'info' : 'warn']({ check: resultName(now ?? was ?? { check: '', target: null }), before: was?.status ?? 'healthy', status, reason: sentence(findings) }, 'health has changed')
  }
}

// Neither is part of the results: when one fails, the results stand.
const afterwards = async (env: Environment, { db }: Catalog, round: Round): Promise<void> => {
  const attempt = (what: string, work: Promise<number>): Promise<number> => work.catch((error: unknown) => {
    env.log.warn({ error: catalogReason(error) }, what)
    return 0
  })
  if (env.config.searchKeyHourlyLimit > 0) await attempt('security events could not be written', recordBusyKeys(db, env.config.searchKeyHourlyLimit))
  await attempt('old results of health checks could not be removed', trimHealth(db, round))
}

/**
 * Makes one round of all checks and records it, when one is due and no other worker makes it. Undefined when that is not so. `interval` is
 * in seconds. Fails when the catalog cannot be read or written, and when `env.signal` aborts.
 */
export const healthRound = async (env: Environment, catalog: Catalog, interval: number): Promise<CheckResult[] | undefined> => {
  const round = await claimRound(catalog.db, env.workerId, interval)
  if (round === undefined) return undefined
  const began = performance.now()
  const last = await lastRound(catalog.db)
  const before = last === undefined ? [] : (await resultsOf(catalog.db, last)).filter(({ check }) => !ofMachine(check) || hostOf(last.worker) === hostOf(env.workerId))
  const context = healthContext({ config: env.config, log: env.log, signal: env.signal, catalog: () => Promise.resolve(catalog), thorough: false, probing: probingAfter(before) })
  const results = await runChecks(context)
  await record(env, catalog, round, before, results, (performance.now() - began) / 1000)
  await afterwards(env, catalog, round)
  return results
}
