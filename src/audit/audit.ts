import { and, asc, desc, eq, gt, gte, like, lt, or } from '../catalog/drizzle.js'
import type { Db } from '../catalog/connect.js'
import { backupAuditLogs } from '../catalog/schema.js'
import type { AuditCategory, AuditStatus } from '../catalog/statuses.js'
import type { AuditRow } from './entry.js'

export { writeAudit } from './append.js'
export type { AuditEvent } from './event.js'

export interface AuditFilter {
  category?: AuditCategory
  /** Such as `schedule.created`; with `*` at its end, all that begin so. */
  type?: string
  status?: AuditStatus
  username?: string
  /** `subject` is its name or its id. */
  resource?: { type: string; id?: string; name?: string; subject?: string }
  correlation?: string
  since?: Date
  until?: Date
  /** Entries with a smaller id, for the next page. */
  before?: number
  limit?: number
}

const typed = (type: string) => type.endsWith('*')
  ? like(backupAuditLogs.event_type, `${type.slice(0, -1).replace(/[\\%_]/g, '\\$&')}%`)
  : eq(backupAuditLogs.event_type, type)

const matches = ({ category, type, status, username, resource, correlation, since, until, before }: AuditFilter) => and(
  category === undefined ? undefined : eq(backupAuditLogs.event_category, category),
  type === undefined ? undefined : typed(type),
  status === undefined ? undefined : eq(backupAuditLogs.status, status),
  username === undefined ? undefined : eq(backupAuditLogs.username, username),
  resource === undefined ? undefined : eq(backupAuditLogs.resource_type, resource.type),
  resource?.id === undefined ? undefined : eq(backupAuditLogs.resource_id, resource.id),
  resource?.name === undefined ? undefined : eq(backupAuditLogs.resource_name, resource.name),
  resource?.subject === undefined ? undefined : or(eq(backupAuditLogs.resource_name, resource.subject), eq(backupAuditLogs.resource_id, resource.subject)),
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
