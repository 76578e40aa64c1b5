import { sql } from '../../catalog/drizzle.js'
import { writeAudit, type AuditEvent } from '../../audit/audit.js'
import type { Db } from '../../catalog/connect.js'
import { catalogFailure } from '../../catalog/failures.js'
import type { AuditAction, RiskLevel } from '../../catalog/statuses.js'
import { BackupdError, messageOf } from '../../errors.js'
import type { Environment } from '../environment.js'

/** What a change of the configuration is about. */
export interface About {
  /** Such as `schedule.created`. */
  event: string
  action: AuditAction
  type: 'source' | 'storage' | 'schedule' | 'key' | 'policy' | 'notifier'
  name: string
  risk?: RiskLevel
}

export interface Changed<T> {
  result: T
  id: number
  /** Without secrets. */
  before?: unknown
  after?: unknown
  data?: Record<string, unknown>
}

const eventOf = (env: Environment, { event, action, type, name, risk = 'low' }: About): AuditEvent =>
  ({ event_type: event, event_category: 'configuration', action, actor: env.actor, resource: { type, name }, risk_level: risk })

/** One thing that settings are held to, and the field that it is about. */
export interface Rule {
  field: string
  /** Throws a BackupdError when it is broken. */
  check(): unknown
}

/** Fails as the first rule that is broken does. */
export const keepRules = async (rules: readonly Rule[]): Promise<void> => {
  for (const { check } of rules) await check()
}

/** What a changed object leaves in the audit trail. */
export const changeEvent = (env: Environment, about: About, { id, before, after, data }: Omit<Changed<unknown>, 'result'>): AuditEvent => ({
  ...eventOf(env, about),
  resource: { type: about.type, id, name: about.name },
  ...(before === undefined ? {} : { before }),
  ...(after === undefined ? {} : { after }),
  ...(data === undefined ? {} : { event_data: data }),
})

// Whoever changes a whole configuration keeps those out who change one thing, until the transaction ends; they do not wait for each other.
const configurationLock = sql`hashtext('backupd configuration')`

/** Waits until nobody else changes the configuration, and lets nobody else change it until the transaction ends. */
export const lockConfiguration = async (tx: Db): Promise<void> => {
  await tx.execute(sql`SELECT pg_advisory_xact_lock(${configurationLock})`)
}

/** Makes a change and its entry in the audit trail, both or neither. An attempt that fails is on record too. */
export const recorded = async <T>(env: Environment, about: About, work: (tx: Db) => Promise<Changed<T>>): Promise<T> => {
  const { db, description } = env.catalog
  const event = eventOf(env, about)
  try {
    return await db.transaction(async (tx) => {
      await tx.execute(sql`SELECT pg_advisory_xact_lock_shared(${configurationLock})`)
      const changed = await work(tx)
      await writeAudit(tx, changeEvent(env, about, changed))
      return changed.result
    })
  } catch (error) {
    const failure = catalogFailure(error, description)
    await writeAudit(db, { ...event, status: 'failure', event_data: { code: failure.code, message: failure.message } })
      .catch((secondary: unknown) => env.log.debug({ error: messageOf(secondary) }, 'the failed attempt is not on record'))
    throw failure
  }
}

/** Fails with `<what>.name_invalid`: a name is 1 to `longest` characters, on one line, without blanks at its ends or a dash first. */
export const checkName = (what: About['type'], name: string, longest = 200): string => {
  const problem = name === '' ? 'it is empty'
    : [...name].length > longest ? `it has more than ${longest} characters`
      : /\p{Cc}/u.test(name) ? 'it holds control characters'
        : name !== name.trim() ? 'it begins or ends with a blank'
          : name.startsWith('-') ? 'it begins with a dash, as options do'
            : undefined
  if (problem === undefined) return name
  throw new BackupdError(`${what}.name_invalid`, `this is no name for a ${what}: ${problem}`, { kind: 'usage', hint: 'Give it another name.' })
}

/** `text` when it fits into its column; undefined stays. Fails with `<what>.description_invalid`. */
export const checkDescription = (what: About['type'], text: string | undefined, longest: number): string | null => {
  if (text === undefined || text === '') return null
  if ([...text].length <= longest && !text.includes('\0')) return text
  throw new BackupdError(`${what}.description_invalid`, `the description has more than ${longest} characters or a zero byte in it`, { kind: 'usage', hint: 'Make it shorter.' })
}

/** Fails with `<what>.in_use`, naming what uses it, unless `uses` is empty. */
export const refuseInUse = (what: About['type'], name: string, uses: readonly string[], hint: string): void => {
  if (uses.length === 0) return
  throw new BackupdError(`${what}.in_use`, `the ${what} ${name} is in use: ${uses.join('; ')}`, { hint, details: { uses: [...uses] } })
}

/** `3 executions`, or nothing for 0. */
export const counted = (count: number, one: string): string[] => (count === 0 ? [] : [`${count} ${one}${count === 1 ? '' : 's'}`])

/** `schedules a, b`, or nothing for none. */
export const named = (names: readonly string[], one: string, many = `${one}s`): string[] =>
  names.length === 0 ? [] : [`${names.length === 1 ? one : many} ${names.join(', ')}`]

/** The time by the catalog's clock, the only one that schedules go by. */
export const catalogTime = async (db: Db): Promise<Date> => {
  const [row] = await db.execute<{ now: Date | string }>(sql`SELECT clock_timestamp() AS now`)
  if (row === undefined) throw new Error('the catalog does not tell the time')
  return new Date(row.now)
}
