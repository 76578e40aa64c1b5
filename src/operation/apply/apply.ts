import { randomBytes } from 'node:crypto'
import { writeAudit, type AuditEvent } from '../../audit/audit.js'
import type { Db } from '../../catalog/connect.js'
import { catalogFailure } from '../../catalog/failures.js'
import { existingSecretKey } from '../../encryption/secrets.js'
import { BackupdError, messageOf } from '../../errors.js'
import { Secret } from '../../secret.js'
import type { ConfigurationFile } from './file.js'
import { differingFields, givenFields, type Change } from './difference.js'
import { invalidFile, pathText, type Problem } from './problem.js'
import type { Existing, Finding, Kind, Scope } from './kind.js'
import { kinds } from './kinds.js'
import { readItems, type Item } from './read.js'
import { isUnread } from './values.js'
import { changeEvent, lockConfiguration, type About, type Changed } from '../settings/configure.js'
import type { Environment } from '../environment.js'

/** What an application does, or would do. */
export interface Application {
  changes: Change[]
  warnings: string[]
}

export interface ApplyOptions {
  /** Remove what the file has a list for and does not name. */
  prune: boolean
}

interface Step {
  kind: Kind
  change: Change
  run(): Promise<Changed<unknown>>
}

const events = { add: 'created', change: 'changed', remove: 'removed' } as const
const actions = { add: 'create', change: 'update', remove: 'delete' } as const

const aboutOf = ({ action, name }: Change, { type }: Kind): About =>
  ({ event: `${type}.${events[action]}`, action: actions[action], type, name, risk: action === 'remove' || type === 'key' ? 'medium' : 'low' })

type Found = Map<Kind, Map<string, Existing<{ name: string }>>>

const readCatalog = async (env: Environment, tx: Db): Promise<Found> => {
  const found: Found = new Map()
  for (const kind of kinds) {
    const byName = new Map<string, Existing<{ name: string }>>()
    for (const existing of await kind.read(env, tx)) {
      if (byName.has(existing.doc.name)) {
        throw new BackupdError('catalog.ambiguous', `there is more than one ${kind.type} named ${existing.doc.name} in the catalog`, { kind: 'usage', hint: 'Rename all but one of them in the catalog.' })
      }
      byName.set(existing.doc.name, existing)
    }
    found.set(kind, byName)
  }
  return found
}

const problemOf = (file: ConfigurationFile, { kind, at }: Item, { field, error }: Finding): Problem => {
  const path = [kind.section, at, ...field.split('.').map((step) => (/^\d+$/.test(step) ? Number(step) : step))]
  return { ...file.place(path), path: pathText(path), code: error.code, message: error.message, ...(error.hint === undefined ? {} : { hint: error.hint.replace(/\.$/, '') }) }
}

const asFinding = (error: unknown, field: string): Finding => {
  if (error instanceof BackupdError) return { field, error }
  throw error
}

/** The step for one object of the file; none when the catalog holds just that. What is wrong with it goes to `problems`. */
const stepFor = async (scope: Scope, file: ConfigurationFile, item: Item, existing: Existing<{ name: string }> | undefined, problems: Problem[]): Promise<Step | undefined> => {
  const { kind } = item
  const note = (finding: Finding): void => {
    // What is missed as a whole may be just what was left out.
    if (!item.incomplete || finding.field !== 'config') problems.push(problemOf(file, item, finding))
  }
  let doc
  try {
    doc = await kind.prepare(scope, item.doc, existing)
  } catch (error) {
    note(asFinding(error, kind.section === 'sources' ? 'url' : ''))
    return undefined
  }
  const fields = existing === undefined ? givenFields(doc) : await differingFields(scope.env, existing.doc, doc)
  if (existing !== undefined && fields.length === 0) return undefined
  for (const { field, value } of unreadIn(doc)) {
    if (!fields.some((change) => change.field === field)) continue
    note({ field, error: new BackupdError('apply.secret_missing', `the value has to be in ${value}, which is not there, and the catalog has none yet`, { kind: 'configuration', hint: 'Set it for this command' }) })
  }
  const names = fields.map(({ field }) => field)
  for (const finding of await kind.check(scope, doc, existing, names)) note(finding)
  const change: Change = { action: existing === undefined ? 'add' : 'change', type: kind.type, name: doc.name, fields }
  return { kind, change, run: () => (existing === undefined ? kind.create(scope, doc) : kind.change(scope, existing, doc, names)) }
}

const unreadIn = (doc: object, prefix = ''): { field: string; value: string }[] =>
  Object.entries(doc).flatMap(([name, value]: [string, unknown]) => {
    if (isUnread(value)) return [{ field: prefix + name, value: value.unread }]
    return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Secret) ? unreadIn(value, `${prefix}${name}.`) : []
  })

const removals = (scope: Scope, found: Found, { names, listed }: ReturnType<typeof readItems>): Step[] =>
  [...kinds].reverse().filter((kind) => listed.has(kind)).flatMap((kind) =>
    [...(found.get(kind)?.values() ?? [])].filter(({ doc }) => names.get(kind)?.has(doc.name) !== true).flatMap((existing): Step[] => {
      if (existing.kept !== undefined) {
        scope.warn(`${kind.type} ${existing.doc.name} is not removed: ${existing.kept}`)
        return []
      }
      return [{ kind, change: { action: 'remove', type: kind.type, name: existing.doc.name, fields: [] }, run: () => kind.remove(scope, existing) }]
    }))

const refused = (errors: readonly BackupdError[]): BackupdError => {
  const [only] = errors
  if (only !== undefined && errors.length === 1) return only
  return new BackupdError('apply.refused', `nothing was changed, because\n${errors.map(({ message }) => `  ${message}`).join('\n')}`, {
    hint: 'Name these in the file, or remove first what uses them.', details: { reasons: errors.map(({ code, message, details }) => ({ code, message, ...details })) },
  })
}

/** Makes every change in the transaction; gives what they leave in the audit trail. What is refused is refused together. */
const runSteps = async (scope: Scope, steps: readonly Step[]): Promise<AuditEvent[]> => {
  const written: AuditEvent[] = []
  const errors: BackupdError[] = []
  const collect = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work()
    } catch (error) {
      // What the database itself refuses ends the transaction; what is refused by us leaves it as it was.
      if (!(error instanceof BackupdError) || error.code.startsWith('catalog.')) throw error
      errors.push(error)
    }
  }
  for (const { kind, change, run } of steps) await collect(async () => void written.push(changeEvent(scope.env, aboutOf(change, kind), await run())))
  const touched = new Set(steps.filter(({ change }) => change.action !== 'add').map(({ kind }) => kind))
  for (const kind of touched) await collect(async () => kind.settle?.(scope))
  if (errors.length > 0) throw refused(errors)
  return written
}

const apply = async (env: Environment, tx: Db, file: ConfigurationFile, { prune }: ApplyOptions): Promise<Application & { written: AuditEvent[] }> => {
  await lockConfiguration(tx)
  const read = readItems(file)
  const problems = [...read.problems]
  const found = await readCatalog(env, tx)
  const warnings: string[] = []
  const scope: Scope = {
    env, tx,
    known: (type, name) => kinds.some((kind) => kind.type === type && (read.names.get(kind)?.has(name) === true || found.get(kind)?.has(name) === true)),
    warn: (text) => void (warnings.includes(text) || warnings.push(text)),
  }
  const steps: Step[] = []
  for (const item of read.items) {
    const step = await stepFor(scope, file, item, found.get(item.kind)?.get(item.doc.name), problems)
    if (step !== undefined) steps.push(step)
  }
  if (problems.length > 0) throw invalidFile(file.name, problems)
  if (prune) steps.push(...removals(scope, found, read))
  const written = await runSteps(scope, steps)
  return { changes: steps.map(({ change }) => change), warnings, written }
}

/** Ends the transaction of a plan. */
class Undo extends Error {
  readonly planned: Application

  constructor(planned: Application) {
    super('only a plan')
    this.planned = planned
  }
}

/**
 * What applying the file would change: every change is made and taken back, so that the catalog itself has had its say. Nothing stays, and
 * no key is made. Fails as `applyConfiguration` does.
 */
export const planConfiguration = async (env: Environment, file: ConfigurationFile, options: ApplyOptions): Promise<Application> => {
  const secretKey = env.config.secretKey ?? (await existingSecretKey(env.config)) ?? new Secret(randomBytes(32).toString('base64'))
  try {
    await env.catalog.db.transaction(async (tx) => {
      const { changes, warnings } = await apply({ ...env, config: { ...env.config, secretKey } }, tx, file, options)
      throw new Undo({ changes, warnings })
    })
  } catch (error) {
    if (error instanceof Undo) return error.planned
    throw catalogFailure(error, env.catalog.description)
  }
  throw new Error('a plan was not taken back')
}

/**
 * Brings the catalog to what the file says, all of it or nothing; of what is as it should be, nothing is touched. `agreed` is the plan that
 * somebody has seen: when it is not the one any more, nothing is done. Each change is an entry in the audit trail, tied together by one id.
 * Fails with `apply.invalid` (exit code 4), `apply.stale`, `apply.refused`, `<what>.in_use` or `key.none`.
 */
export const applyConfiguration = async (env: Environment, file: ConfigurationFile, options: ApplyOptions, agreed?: readonly Change[]): Promise<Application> => {
  const correlation_id = `apply-${randomBytes(6).toString('hex')}`
  try {
    return await env.catalog.db.transaction(async (tx) => {
      const { written, ...application } = await apply(env, tx, file, options)
      if (agreed !== undefined && JSON.stringify(agreed) !== JSON.stringify(application.changes)) {
        throw new BackupdError('apply.stale', 'somebody else has changed the configuration meanwhile, and nothing was done', { retryable: true, hint: 'Run it again, and look at the new plan.' })
      }
      // Last, because writers of the audit trail wait for each other.
      for (const event of written) await writeAudit(tx, { ...event, correlation_id, event_data: { ...event.event_data, applied_from: file.name } })
      return application
    })
  } catch (error) {
    const failure = catalogFailure(error, env.catalog.description)
    await writeAudit(env.catalog.db, {
      event_type: 'configuration.apply', event_category: 'configuration', action: 'update', status: 'failure', actor: env.actor, correlation_id,
      resource: { type: 'configuration', name: file.name }, event_data: { code: failure.code, message: failure.message },
    }).catch((secondary: unknown) => env.log.debug({ error: messageOf(secondary) }, 'the failed attempt is not on record'))
    throw failure
  }
}
