import { randomUUID } from 'node:crypto'
import { and, asc, desc, eq, gt, gte, lt, sql } from 'drizzle-orm'
import type { Db } from '../catalog/connect.js'
import { backupAuditChain, backupAuditLogs } from '../catalog/schema.js'
import type { AuditAction, AuditCategory, AuditStatus, RiskLevel } from '../catalog/statuses.js'
import { beginning, clean, cleanText, hashOf, type AuditRow } from './entry.js'

export interface AuditEvent {
  /** Such as `schedule.created`. */
  event_type: string
  event_category: AuditCategory
  action: AuditAction
  /** Default `success`. */
  status?: AuditStatus
  /** Who did it: a user of the operating system at a host, or the daemon. */
  actor: { username: string; host?: string; ip?: string; user_agent?: string }
  resource?: { type: string; id?: string | number; name?: string }
  before?: unknown
  after?: unknown
  event_data?: Record<string, unknown>
  /** Default `low`. */
  risk_level?: RiskLevel
  /** What ties entries together, such as a backup_id. */
  correlation_id?: string
}

type Entry = Omit<AuditRow, 'id' | 'updated_at' | 'chain_seq' | 'prev_hash' | 'hash'>

const entryOf = ({ actor, resource, ...event }: AuditEvent, createdAt: Date): Entry => ({
  audit_id: randomUUID(),
  event_type: cleanText(event.event_type, 100) ?? '',
  event_category: event.event_category,
  user_id: null,
  username: cleanText(actor.username, 200),
  user_ip: cleanText(actor.ip, 45),
  user_agent: cleanText(actor.user_agent, 500),
  resource_type: cleanText(resource?.type, 50),
  resource_id: cleanText(resource?.id?.toString(), 100),
  resource_name: cleanText(resource?.name, 200),
  action: event.action,
  status: event.status ?? 'success',
  event_data: clean({ ...event.event_data, ...(actor.host === undefined ? {} : { host: actor.host }) }),
  before_state: clean(event.before),
  after_state: clean(event.after),
  risk_level: event.risk_level ?? 'low',
  compliance_tags: null,
  session_id: null,
  correlation_id: cleanText(event.correlation_id, 100),
  created_at: createdAt,
})

/**
 * Adds an entry to the chain. Writers wait for each other until the end of their transactions, so call it last in one. Secrets are
 * masked; texts are cut to their columns.
 */
export const writeAudit = (db: Db, event: AuditEvent): Promise<AuditRow> =>
  db.transaction(async (tx) => {
    await tx.insert(backupAuditChain).values({ id: 1, seq: 0, hash: beginning }).onConflictDoNothing()
    const [head] = await tx.select({
      seq: backupAuditChain.seq,
      hash: backupAuditChain.hash,
      // To the millisecond, which is all that a Date reads back.
      now: sql`date_trunc('milliseconds', clock_timestamp())`.mapWith(backupAuditChain.updated_at),
    }).from(backupAuditChain).where(eq(backupAuditChain.id, 1)).for('update')
    if (head === undefined) throw new Error('the head of the audit chain is gone')
    const seq = head.seq + 1
    const entry = entryOf(event, head.now)
    const hash = hashOf(entry, seq, head.hash)
    const event_data = { ...(entry.event_data as Record<string, unknown>), chain: { seq, prev: head.hash, hash } }
    const [row] = await tx.insert(backupAuditLogs).values({ ...entry, event_data }).returning()
    await tx.update(backupAuditChain).set({ seq, hash, updated_at: head.now }).where(eq(backupAuditChain.id, 1))
    if (row === undefined) throw new Error('the audit entry was not stored')
    return row
  })

export interface AuditFilter {
  category?: AuditCategory
  type?: string
  status?: AuditStatus
  username?: string
  resource?: { type: string; id?: string; name?: string }
  correlation?: string
  since?: Date
  until?: Date
  /** Entries with a smaller id, for the next page. */
  before?: number
  limit?: number
}

const matches = ({ category, type, status, username, resource, correlation, since, until, before }: AuditFilter) => and(
  category === undefined ? undefined : eq(backupAuditLogs.event_category, category),
  type === undefined ? undefined : eq(backupAuditLogs.event_type, type),
  status === undefined ? undefined : eq(backupAuditLogs.status, status),
  username === undefined ? undefined : eq(backupAuditLogs.username, username),
  resource === undefined ? undefined : eq(backupAuditLogs.resource_type, resource.type),
  resource?.id === undefined ? undefined : eq(backupAuditLogs.resource_id, resource.id),
  resource?.name === undefined ? undefined : eq(backupAuditLogs.resource_name, resource.name),
  correlation === undefined ? undefined : eq(backupAuditLogs.correlation_id, correlation),
  since === undefined ? undefined : gte(backupAuditLogs.created_at, since),
  until === undefined ? undefined : lt(backupAuditLogs.created_at, until),
  before === undefined ? undefined : lt(backupAuditLogs.id, before),
)

/** Entries, newest first; those of other programs too. */
export const listAudit = (db: Db, { limit = 50, ...filter }: AuditFilter = {}): Promise<AuditRow[]> =>
  db.select().from(backupAuditLogs).where(matches(filter)).orderBy(desc(backupAuditLogs.id)).limit(limit)

/** All entries that match, oldest first, whatever their number. */
export async function* readAudit(db: Db, filter: Omit<AuditFilter, 'limit'> = {}): AsyncGenerator<AuditRow> {
  for (let last = 0; ;) {
    const page = await db.select().from(backupAuditLogs).where(and(matches(filter), gt(backupAuditLogs.id, last)))
      .orderBy(asc(backupAuditLogs.id)).limit(500)
    yield* page
    const end = page.at(-1)
    if (end === undefined) return
    last = end.id
  }
}
