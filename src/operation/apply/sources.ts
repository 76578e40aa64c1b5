import { z } from 'zod'
import { jsonObject } from '../../catalog/json.js'
import { insertSource, listSources, updateSource, type Source } from '../../catalog/sources.js'
import { loadSecretKey, sealConfig } from '../../encryption/secrets.js'
import { BackupdError } from '../../errors.js'
import { describeConnection, parseConnection } from '../../postgres/connection.js'
import { Secret } from '../../secret.js'
import { brokenRules, type Finding, type Kind, type Scope } from './kind.js'
import { heldSecret, isUnread, reference, sealOrder, secretValue, takeSecret } from './values.js'
import { leadsNowhere } from '../settings/references.js'
import { removeUnusedSource, sourceRules, sourceView } from '../settings/sources.js'
import { connectionOf, DEFAULT_SOURCE, SOURCE_SECRETS } from '../sources.js'

interface SourceDoc {
  name: string
  /** A URL without its password, or a reference. */
  url: unknown
  password?: unknown
  description?: string | undefined
}

const schema = z.strictObject({
  name: z.string('text').describe('What to call it. The one named default is used by schedules that name none.'),
  url: z.union([z.string().min(1), reference, sealOrder], 'a URL such as postgres://user@host:5432/database, {$env: NAME}, {$file: /absolute/path}, or either inside {$seal: …}')
    .describe('Where the database is. A password in it is kept sealed.'),
  password: secretValue.optional().describe('The password, apart from the URL.'),
  description: z.string('text').optional().describe('For people.'),
})

// A password may stand in the URL or beside it; apart, the rest can be compared and shown.
const apart = (url: unknown, password: unknown): { url: unknown; password?: unknown } => {
  if (typeof url !== 'string') return password === undefined || password === null ? { url } : { url, password }
  const connection = parseConnection(url)
  const secret = connection.password ?? password
  return { url: describeConnection(connection), ...(secret === undefined || secret === null ? {} : { password: secret }) }
}

const docOf = (row: Source): SourceDoc => {
  const { url, password } = jsonObject(row.connection)
  const description = row.description === null ? {} : { description: row.description }
  try {
    return { name: row.name, ...apart(url, heldSecret(password)), ...description }
  } catch {
    // What is in the catalog may be anything; it then differs from every file.
    return { name: row.name, url: typeof url === 'string' ? new Secret(url) : url, ...description }
  }
}

const hasPassword = (url: unknown): boolean => {
  try {
    return typeof url === 'string' && parseConnection(url).password !== undefined
  } catch {
    return false
  }
}

const connection = async ({ env }: Scope, { url, password }: SourceDoc): Promise<Record<string, unknown>> =>
  sealConfig(password === undefined ? { url } : { url, password }, SOURCE_SECRETS, password instanceof Secret ? await loadSecretKey(env.config) : new Secret(''))

const checkConnection = async ({ env, warn }: Scope, { name, url, password }: SourceDoc): Promise<Finding[]> => {
  try {
    await connectionOf(env, { name, connection: password === undefined ? { url } : { url, password } })
    return []
  } catch (error) {
    if (!(error instanceof BackupdError)) throw error
    if (!leadsNowhere(error)) return [{ field: 'url', error }]
    warn(`source ${name}: ${error.message}; it has to be where the daemon runs`)
    return []
  }
}

/** Databases to back up. */
export const sourceKind: Kind<SourceDoc, Source> = {
  section: 'sources',
  type: 'source',
  schema,
  defaults: {},
  fields: () => Object.keys(schema.shape),
  read: async ({ config }, tx) => (await listSources(tx)).map((row) => ({
    id: row.id, row, doc: docOf(row), ...(row.name === DEFAULT_SOURCE && config.sourceUrl !== undefined ? { kept: 'BACKUPD_SOURCE_URL says what it is' } : {}),
  })),
  prepare: async ({ env }, item, existing) => {
    const given = typeof item.url === 'string' ? item.url : await takeSecret(env, item.url, 'the URL')
    const password = item.password === undefined ? undefined : await takeSecret(env, item.password, 'the password')
    if (isUnread(given)) {
      if (existing === undefined || typeof existing.doc.url !== 'string') return { ...item, url: given }
      return { ...item, url: existing.doc.url, ...(existing.doc.password === undefined ? {} : { password: existing.doc.password }) }
    }
    const url = given instanceof Secret ? given.reveal() : given
    if (hasPassword(url) && password !== undefined) throw new BackupdError('source.password', 'the password stands in the URL and beside it', { kind: 'usage', hint: 'Give it once.' })
    return { ...item, ...apart(url, password) }
  },
  check: async (scope, doc) => {
    const found = await brokenRules(sourceRules(doc))
    if (isUnread(doc.url) || isUnread(doc.password)) return found
    if (doc.name === DEFAULT_SOURCE && scope.env.config.sourceUrl !== undefined) scope.warn('BACKUPD_SOURCE_URL is set and goes before the URL of the source default')
    return [...found, ...(await checkConnection(scope, doc))]
  },
  create: async (scope, doc) => {
    const row = await insertSource(scope.tx, { name: doc.name, connection: await connection(scope, doc), description: doc.description ?? null })
    return { result: row, id: row.id, after: sourceView(row) }
  },
  change: async (scope, { id, doc: current, row: before }, doc) => {
    const kept = isUnread(doc.password) ? { ...doc, password: current.password } : doc
    const row = (await updateSource(scope.tx, id, { connection: await connection(scope, kept), description: doc.description ?? null })) ?? before
    return { result: row, id, before: sourceView(before), after: sourceView(row) }
  },
  remove: async ({ tx }, { row }) => removeUnusedSource(tx, row),
}
