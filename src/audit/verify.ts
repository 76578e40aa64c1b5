import { eq, sql } from 'drizzle-orm'
import type { Db } from '../catalog/connect.js'
import { backupAuditChain, backupAuditLogs } from '../catalog/schema.js'
import { readAudit } from './audit.js'
import { beginning, hashOf, linkOf, type AuditRow, type Link } from './entry.js'

/** Where the chain breaks first. */
export interface BrokenLink {
  reason: 'changed' | 'removed' | 'reordered'
  /** One sentence. */
  message: string
  /** The entry at which it shows; undefined when the newest entries are missing. */
  id?: number
  audit_id?: string
  /** Its number in the chain, or that of the missing one. */
  seq: number
}

export interface AuditVerification {
  ok: boolean
  /** Entries of the chain that were found good. */
  checked: number
  /** Entries without a link, which other programs wrote; nothing can be said about them. */
  foreign: number
  /** The last good entry. Noted elsewhere, it shows later whether the whole chain was written anew. */
  head: { seq: number; hash: string }
  broken?: BrokenLink
}

const present = async (db: Db, seq: number): Promise<boolean> =>
  // The operator takes both column types; the comparison is of text, because anything may stand there.
  (await db.select({ id: backupAuditLogs.id }).from(backupAuditLogs)
    .where(eq(sql`${backupAuditLogs.event_data} -> 'chain' ->> 'seq'`, String(seq))).limit(1)).length > 0

const problem = async (db: Db, row: AuditRow, link: Link, head: { seq: number; hash: string }): Promise<BrokenLink | undefined> => {
  const at = { id: row.id, audit_id: row.audit_id }
  const expected = head.seq + 1
  if (hashOf(row, link.seq, link.prev) !== link.hash) {
    return { reason: 'changed', ...at, seq: link.seq, message: `entry ${row.id} was changed after it was written` }
  }
  if (link.seq === expected) {
    return link.prev === head.hash ? undefined : { reason: 'changed', ...at, seq: link.seq, message: `entry ${row.id} does not follow the one before it` }
  }
  if (link.seq < expected || (await present(db, expected))) {
    return { reason: 'reordered', ...at, seq: link.seq, message: `entry ${row.id} is not in its place: it is number ${link.seq}, where ${expected} belongs` }
  }
  return { reason: 'removed', ...at, seq: expected, message: `number ${expected} was removed before entry ${row.id}` }
}

/** Follows the chain from its beginning, as of one point in time, up to the first entry that was changed, removed or moved. */
export const verifyAudit = (db: Db): Promise<AuditVerification> =>
  db.transaction(async (tx) => {
    let head = { seq: 0, hash: beginning }
    let foreign = 0
    for await (const row of readAudit(tx)) {
      const link = linkOf(row)
      if (link === undefined) {
        foreign += 1
        continue
      }
      const broken = await problem(tx, row, link, head)
      if (broken !== undefined) return { ok: false, checked: head.seq, foreign, head, broken }
      head = { seq: link.seq, hash: link.hash }
    }
    const [end] = await tx.select().from(backupAuditChain).where(eq(backupAuditChain.id, 1))
    const seq = end?.seq ?? 0
    const whole = seq === head.seq && (end?.hash ?? beginning) === head.hash
    if (whole) return { ok: true, checked: head.seq, foreign, head }
    const message = seq > head.seq ? `the newest ${seq - head.seq} entries, from number ${head.seq + 1} on, were removed`
      : 'the record of where the chain ends was changed or removed'
    return { ok: false, checked: head.seq, foreign, head, broken: { reason: seq > head.seq ? 'removed' : 'changed', seq: head.seq + 1, message } }
  }, { isolationLevel: 'repeatable read', accessMode: 'read only' })
