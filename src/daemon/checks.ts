import type { Catalog } from '../catalog/connect.js'
import { catalogReason, isUnreachable } from '../catalog/failures.js'
import { lastRound, resultsOf, type RecordedCheck } from '../catalog/health.js'
import { throwIfAborted } from '../errors.js'
import { worst } from '../health/check.js'
import { checks, runChecks, type CheckResult } from '../health/registry.js'
import type { HealthEntry, HealthStatus } from '../http/monitor.js'
import type { Environment } from '../operation/environment.js'
import { healthContext } from '../operation/health.js'
import { healthRound, sentence } from '../operation/health-round.js'

const ofMachine = (name: string): boolean => checks.find((check) => check.name === name)?.scope === 'machine'

// The daemon has entries of its own under these names: that it runs, and whether the catalog answers.
const entryName = (check: string): string => (check === 'catalog' ? 'schema' : check === 'daemon' ? 'daemons' : check)

const entryOf = ({ check, level, findings }: CheckResult, checkedAt: number): HealthEntry => ({ name: entryName(check), status: level, message: sentence(findings), checkedAt })

const levelOf = ({ status }: RecordedCheck): HealthStatus => (status === 'healthy' || status === 'warning' ? status : 'critical')

/** The results of a round as entries, one for each check, however many targets it had. */
const entriesOf = (recorded: readonly RecordedCheck[], now: number): HealthEntry[] => {
  const byCheck = new Map<string, RecordedCheck[]>()
  for (const one of recorded) byCheck.set(one.check, [...(byCheck.get(one.check) ?? []), one])
  return [...byCheck].filter(([check]) => !ofMachine(check)).map(([check, rows]) => ({
    name: entryName(check), status: worst(rows.map(levelOf)), message: sentence(rows.flatMap(({ findings }) => findings)),
    checkedAt: now - Math.max(...rows.map(({ age }) => age)) * 1000,
  }))
}

const lookAt = async (env: Environment, catalog: Catalog, wanted: (name: string) => boolean): Promise<HealthEntry[]> => {
  // Without a round there is nobody to say where a probe would stay, so that none is written.
  const context = healthContext({ config: env.config, log: env.log, signal: env.signal, catalog: () => Promise.resolve(catalog), thorough: false, probing: () => ({ write: false }) })
  const results = await runChecks(context, checks.filter(({ name }) => wanted(name)))
  return results.map((result) => entryOf(result, performance.now()))
}

/** What is seen when the results cannot be recorded, such as on a full disk: the checks are made all the same, and it is told why. */
const unrecorded = async (env: Environment, catalog: Catalog, error: unknown): Promise<HealthEntry[]> => {
  const reason = catalogReason(error)
  env.log.error({ error: reason }, 'health could not be recorded')
  return [{ name: 'recording', status: 'critical', message: `results cannot be written to the catalog: ${reason}`, checkedAt: performance.now() }, ...(await lookAt(env, catalog, () => true))]
}

/**
 * Entries of `/health`. One daemon of all makes the round that is due (`interval` in seconds) and records it; the others show what it found, and
 * of their own machine what they see themselves.
 */
export const lookAtEverything = async (env: Environment, catalog: Catalog, interval: number): Promise<HealthEntry[]> => {
  let made: CheckResult[] | undefined
  try {
    made = await healthRound(env, catalog, interval)
  } catch (error) {
    throwIfAborted(env.signal)
    if (isUnreachable(error)) throw error
    return unrecorded(env, catalog, error)
  }
  if (made !== undefined) return made.map((result) => entryOf(result, performance.now()))
  const own = await lookAt(env, catalog, ofMachine)
  const last = await lastRound(catalog.db)
  if (last === undefined) return own
  const late = last.age > 3 * interval
  const warning: HealthEntry[] = late ? [{ name: 'rounds', status: 'warning', message: `no round of checks was finished for ${Math.round(last.age / 60)} min`, checkedAt: performance.now() }] : []
  return [...warning, ...own, ...entriesOf(await resultsOf(catalog.db, last), performance.now())]
}
