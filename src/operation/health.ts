import type { Catalog } from '../catalog/connect.js'
import { listSchedules } from '../catalog/schedules.js'
import { listSources } from '../catalog/sources.js'
import { listStorages } from '../catalog/storages.js'
import type { HealthContext, SourceTarget, StorageTarget } from '../health/check.js'
import { findTools } from '../postgres/tools.js'
import { nextRun } from './settings/cron.js'
import type { Environment } from './environment.js'
import { identitiesAtHand } from './identities.js'
import { connectionOf, DEFAULT_SOURCE, fromEnvironment, openStorageToLook } from './sources.js'

interface Surroundings extends Pick<Environment, 'config' | 'log' | 'signal'> {
  catalog(): Promise<Catalog>
  thorough: boolean
  /** Default: probes are written to every storage. */
  probing?: HealthContext['probing']
}

const once = <T>(get: () => Promise<T>): (() => Promise<T>) => {
  let got: Promise<T> | undefined
  return () => (got ??= get())
}

const sourcesOf = async ({ config, catalog }: Surroundings): Promise<SourceTarget[]> => {
  const fromUrl = fromEnvironment({ config }, DEFAULT_SOURCE)
  const own: SourceTarget[] = fromUrl === undefined ? [] : [{ id: null, name: DEFAULT_SOURCE, connection: async () => fromUrl }]
  // The catalog's own check tells why it cannot be had; what the environment says can be looked at all the same.
  const opened = await catalog().catch((error: unknown) => {
    if (own.length === 0) throw error
    return undefined
  })
  if (opened === undefined) return own
  const rows = (await listSources(opened.db)).filter(({ name }) => own.length === 0 || name !== DEFAULT_SOURCE)
  return [...own, ...rows.map((row) => ({ id: row.id, name: row.name, connection: () => connectionOf({ config }, row) }))]
}

const storagesOf = async ({ config, log, catalog }: Surroundings): Promise<StorageTarget[]> =>
  (await listStorages((await catalog()).db)).filter(({ is_active }) => is_active).map((row) => ({ row, open: () => openStorageToLook({ config, log }, row) }))

/** What the checks of src/health look at, for one round of them. */
export const healthContext = (surroundings: Surroundings): HealthContext => {
  const { config, log, signal, thorough, catalog, probing = () => ({ write: true }) } = surroundings
  return {
    config, log, signal, thorough, catalog, probing,
    tools: once(() => findTools({ pgBin: config.pgBin })),
    identities: once(() => identitiesAtHand({ config, log })),
    sources: once(() => sourcesOf(surroundings)),
    storages: once(() => storagesOf(surroundings)),
    schedules: once(async () => listSchedules((await catalog()).db)),
    dueAfter: ({ cron_expression, timezone }, from) => nextRun(cron_expression, timezone, from),
  }
}
