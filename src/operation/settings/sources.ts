import { jsonObject } from '../../catalog/json.js'
import { isManaged, listSchedules } from '../../catalog/schedules.js'
import { findSource, insertSource, listSources, removeSource, usesOfSource, type Source } from '../../catalog/sources.js'
import type { Db } from '../../catalog/connect.js'
import { maskConfig } from '../../encryption/secrets.js'
import type { BackupdError } from '../../errors.js'
import { parseConnection } from '../../postgres/connection.js'
import { redact } from '../../secret.js'
import { checkDescription, checkName, keepRules, named, recorded, refuseInUse, type Changed, type Rule } from './configure.js'
import type { Environment } from '../environment.js'
import { leadsNowhere, parseGiven } from './references.js'
import { connectionOf, DEFAULT_SOURCE, noSource, sealConnection, SOURCE_SECRETS } from '../sources.js'

/** A source as it may be shown. `id` is null for what only BACKUPD_SOURCE_URL says. */
export type SourceView = Omit<Source, 'id' | 'created_at'> & { id: number | null; created_at: Date | null }

export interface NewSourceSettings {
  name: string
  /** A URL or a reference, as typed. */
  url: string
  description?: string | undefined
}

/** What the settings of a source have to keep by themselves. */
export const sourceRules = ({ name, description }: Pick<NewSourceSettings, 'name' | 'description'>): Rule[] => [
  { field: 'name', check: () => checkName('source', name) },
  { field: 'description', check: () => checkDescription('source', description, 1000) },
]

/** The row without secrets. */
export const sourceView = (row: Source): SourceView => {
  const { url, ...rest } = maskConfig(jsonObject(row.connection), SOURCE_SECRETS)
  return { ...row, connection: { url: typeof url === 'string' ? redact(url) : url, ...rest } }
}

/** All sources without secrets; `default` as it is in effect. */
export const viewSources = async ({ catalog, config }: Environment): Promise<SourceView[]> => {
  const rows = (await listSources(catalog.db)).map(sourceView)
  if (config.sourceUrl === undefined) return rows
  const connection = { url: { $env: 'BACKUPD_SOURCE_URL' } }
  const own = rows.find(({ name }) => name === DEFAULT_SOURCE)
  const merged: SourceView = { ...(own ?? { id: null, name: DEFAULT_SOURCE, description: null, created_at: null, updated_at: null }), connection }
  return [...rows.filter((row) => row !== own), merged].sort((a, b) => (a.name < b.name ? -1 : 1))
}

// The password is kept apart, so that the rest can be shown.
const connectionFor = async (env: Environment, text: string): Promise<Record<string, unknown>> => {
  const given = parseGiven(text, 'the URL')
  return typeof given === 'string' ? sealConnection(env, parseConnection(given)) : { url: given }
}

/**
 * Adds a source, its password sealed. A reference that leads nowhere here is a warning, because it is the daemon that has to follow it.
 * Fails with `source.exists`, `source.url_invalid`, `source.name_invalid` or `config.reference`.
 */
export const addSource = async (env: Environment, settings: NewSourceSettings): Promise<{ source: SourceView; warnings: string[] }> => {
  await keepRules(sourceRules(settings))
  const { name } = settings
  const description = checkDescription('source', settings.description, 1000)
  const connection = await connectionFor(env, settings.url)
  const warnings: string[] = []
  await connectionOf(env, { name, connection }).catch((error: unknown) => {
    if (!leadsNowhere(error)) throw error
    warnings.push(`${(error as BackupdError).message}; it has to be where the daemon runs`)
  })
  if (name === DEFAULT_SOURCE && env.config.sourceUrl !== undefined) warnings.push('BACKUPD_SOURCE_URL is set and goes before this URL')
  const source = await recorded(env, { event: 'source.created', action: 'create', type: 'source', name }, async (tx) => {
    const row = await insertSource(tx, { name, connection, description })
    return { result: row, id: row.id, after: sourceView(row) }
  })
  return { source: sourceView(source), warnings }
}

const usesOf = async (tx: Db, { id, name }: Source): Promise<string[]> => {
  const { schedules } = await usesOfSource(tx, id)
  const byDefault = name === DEFAULT_SOURCE ? (await listSchedules(tx)).filter((schedule) => schedule.source_id === null && !isManaged(schedule)).map((schedule) => schedule.name) : []
  return named([...schedules, ...byDefault], 'schedule')
}

/** Removes a source that no schedule uses, in a transaction; its executions stay. Fails with `source.in_use`. */
export const removeUnusedSource = async (tx: Db, row: Source): Promise<Changed<SourceView>> => {
  refuseInUse('source', row.name, await usesOf(tx, row), 'Remove these schedules first.')
  await removeSource(tx, row.id)
  return { result: sourceView(row), id: row.id, before: sourceView(row) }
}

/** Removes a source; its executions stay. Fails with `source.not_found` and, while a schedule uses it, `source.in_use`. */
export const dropSource = (env: Environment, name: string): Promise<SourceView> =>
  recorded(env, { event: 'source.removed', action: 'delete', type: 'source', name, risk: 'medium' }, async (tx) => {
    const row = await findSource(tx, name)
    if (row === undefined) throw noSource(name)
    return removeUnusedSource(tx, row)
  })
