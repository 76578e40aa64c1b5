import type { Catalog } from '../catalog/connect.js'
import { listStorages, recordStorageHealth } from '../catalog/storages.js'
import type { Finding } from '../health/check.js'
import { checks, runChecks } from '../health/registry.js'
import type { HealthEntry } from '../http/monitor.js'
import type { Environment } from '../operation/environment.js'
import { healthContext } from '../operation/health.js'

/** What the daemon knows better by itself. */
const own = ['catalog', 'daemon']
const MOST_NAMED = 5

const sentence = (findings: readonly Finding[]): string => {
  const bad = findings.filter(({ level }) => level !== 'healthy')
  const told = (bad.length > 0 ? bad : findings).map(({ subject, message }) => `${subject}: ${message}`)
  return told.length > MOST_NAMED ? `${told.slice(0, MOST_NAMED).join('; ')}; and ${told.length - MOST_NAMED} more` : told.join('; ')
}

/** Notes in each storage's row whether it could be reached, for whoever reads the shared table. */
const recordStorages = async ({ db }: Catalog, findings: readonly Finding[]): Promise<void> => {
  for (const { id, name, is_active } of await listStorages(db)) {
    const about = findings.filter(({ subject }) => subject === `storage ${name}`)
    if (is_active && about.length > 0) await recordStorageHealth(db, id, !about.some(({ level }) => level === 'critical'), sentence(about))
  }
}

/** Looks at everything a backup needs, without writing to any storage, and says what it found as entries of `/health`. */
export const lookAtEverything = async (env: Environment, catalog: Catalog): Promise<HealthEntry[]> => {
  const context = healthContext({ config: env.config, log: env.log, signal: env.signal, catalog: () => Promise.resolve(catalog), thorough: false })
  const results = await runChecks(context, checks.filter(({ name }) => !own.includes(name)))
  const checkedAt = performance.now()
  await recordStorages(catalog, results.find(({ check }) => check === 'storages')?.findings ?? [])
  return results.map(({ check, level, findings }) => ({ name: check, status: level, message: sentence(findings), checkedAt }))
}
