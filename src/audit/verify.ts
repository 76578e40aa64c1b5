import { and, asc, count, eq, gt, isNotNull, isNull } from '../catalog/drizzle.js'
import type { Db } from '../catalog/connect.js'
import { backupAuditChain, backupAuditLogs } from '../catalog/schema.js'
import type { Anchor } from './anchor.js'
import { beginning, hashOf, isChained, type ChainedRow } from './entry.js'

/** Where the chain breaks first. */
export interface BrokenLink {
  /** `added`: by another way than through backupd. `replaced`: by a chain that began anew. */
  reason: 'changed' | 'removed' | 'added' | 'replaced'
  /** One sentence. */
  message: string
  /** The entry at which it shows; undefined when entries are missing at the end. */
  id?: number
  audit_id?: string
  /** Its number in the chain, or that of the missing one. */
  seq: number
  /** The backup whose manifest shows it. */
  backup_id?: string
}

export interface AuditVerification {
  ok: boolean
  /** Entries of the chain that were found good. */
  checked: number
  /** Rows without a hash, which other programs wrote; nothing can be said about them. */
  foreign: number
  /** Manifests whose anchor was compared and found good. */
  anchors: number
  /** The last good entry. Noted elsewhere, it shows later whether the whole chain was written anew. */
  head: { seq: number; hash: string }
  /** The hash of the first entry; null while there is none. */
  chain: string | null
  broken?: BrokenLink
}

export interface VerifyAuditOptions {
  /** Heads of the chain that were noted in manifests. */
  anchors?: readonly Anchor[]
  /** First hashes of earlier chains whose anchors are expected, such as after the catalog was rebuilt. */
  knownChains?: readonly string[]
}

const PAGE = 1000

async function* chainedRows(db: Db): AsyncGenerator<ChainedRow> {
  for (let last = 0; ;) {
    const page = await db.select().from(backupAuditLogs).where(and(isNotNull(backupAuditLogs.hash), gt(backupAuditLogs.chain_seq, last)))
      .orderBy(asc(backupAuditLogs.chain_seq)).limit(PAGE)
    for (const row of page) if (isChained(row)) yield row
    const end = page.at(-1)?.chain_seq
    if (end === undefined || end === null) return
    last = end
  }
}

const problemOf = (row: ChainedRow, head: { seq: number; hash: string }): BrokenLink | undefined => {
  const at = { id: row.id, audit_id: row.audit_id }
  const expected = head.seq + 1
  if (row.chain_seq !== expected) {
    const missing = row.chain_seq - expected
    return { reason: 'removed', ...at, seq: expected, message: `entry ${expected}${missing === 1 ? ' was' : ` and the ${missing - 1} after it were`} removed: entry ${row.chain_seq} follows on entry ${head.seq}` }
  }
  if (hashOf(row) !== row.hash) return { reason: 'changed', ...at, seq: expected, message: `entry ${expected} (id ${row.id}) was changed after it was written` }
  if (row.prev_hash !== head.hash) return { reason: 'changed', ...at, seq: expected, message: `entry ${expected} (id ${row.id}) does not follow on the one before it` }
  return undefined
}

const problemOfAnchor = ({ backup_id, seq, hash }: Anchor, row: ChainedRow): BrokenLink | undefined => hash === row.hash ? undefined : {
  reason: 'replaced', id: row.id, audit_id: row.audit_id, seq, backup_id,
  message: `entry ${seq} is not the one that the manifest of backup ${backup_id} names: the trail was written anew up to there`,
}

/** What the end shows: the record of where it is, and the anchors that nothing was found for. */
const problemOfEnd = (head: { seq: number; hash: string }, recorded: { seq: number; hash: string } | undefined, beyond: Anchor | undefined): BrokenLink | undefined => {
  const seq = head.seq + 1
  const end = recorded ?? { seq: 0, hash: beginning }
  if (beyond !== undefined && beyond.seq >= end.seq) {
    return {
      reason: 'removed', seq, backup_id: beyond.backup_id,
      message: `entry ${seq} and what followed it, up to entry ${beyond.seq} at least, ${beyond.seq === seq ? 'was' : 'were'} removed: the manifest of backup ${beyond.backup_id} names entry ${beyond.seq}`,
    }
  }
  if (end.seq > head.seq) return { reason: 'removed', seq, message: `the newest ${end.seq - head.seq} entries, from entry ${seq} on, were removed` }
  if (end.seq < head.seq) return { reason: 'added', seq: end.seq + 1, message: `entry ${end.seq + 1} is beyond the recorded end of the trail: it was not written by backupd, or the record was changed` }
  return end.hash === head.hash ? undefined : { reason: 'changed', seq: head.seq, message: 'the record of where the trail ends was changed' }
}

const problemOfOthers = (other: Anchor | undefined, chain: string | null): BrokenLink | undefined => other === undefined ? undefined : {
  reason: 'replaced', seq: 1, backup_id: other.backup_id,
  message: `the manifest of backup ${other.backup_id} names entry ${other.seq} of another trail, whose first entry has the hash ${other.chain}; that of this one has ${chain ?? 'none'}`,
}

/**
 * Follows the chain from its beginning, as of one point in time, up to the first entry that was changed, removed, added by hand or
 * replaced, as far as the entries themselves, the record of the chain's end and `anchors` show it.
 */
export const verifyAudit = (db: Db, { anchors = [], knownChains = [] }: VerifyAuditOptions = {}): Promise<AuditVerification> =>
  db.transaction(async (tx) => {
    const [first] = await tx.select({ hash: backupAuditLogs.hash }).from(backupAuditLogs).where(eq(backupAuditLogs.chain_seq, 1))
    const chain = first?.hash ?? null
    const [others] = await tx.select({ n: count() }).from(backupAuditLogs).where(isNull(backupAuditLogs.hash))
    const wanted = anchors.filter((anchor) => anchor.chain === chain || !knownChains.includes(anchor.chain))
    // Where nothing is left, whatever was there was removed.
    const own = wanted.filter((anchor) => anchor.chain === chain || chain === null).sort((a, b) => a.seq - b.seq)
    const found = { checked: 0, foreign: others?.n ?? 0, anchors: 0, head: { seq: 0, hash: beginning }, chain }
    const broken = (problem: BrokenLink): AuditVerification => ({ ok: false, ...found, broken: problem })
    for await (const row of chainedRows(tx)) {
      const problem = problemOf(row, found.head)
      if (problem !== undefined) return broken(problem)
      for (let anchor = own[found.anchors]; anchor?.seq === row.chain_seq; anchor = own[found.anchors]) {
        const replaced = problemOfAnchor(anchor, row)
        if (replaced !== undefined) return broken(replaced)
        found.anchors += 1
      }
      found.head = { seq: row.chain_seq, hash: row.hash }
      found.checked = row.chain_seq
    }
    const [end] = await tx.select({ seq: backupAuditChain.seq, hash: backupAuditChain.hash }).from(backupAuditChain).where(eq(backupAuditChain.id, 1))
    const problem = problemOfEnd(found.head, end, own.length > found.anchors ? own.at(-1) : undefined)
      ?? problemOfOthers(wanted.find((anchor) => anchor.chain !== chain), chain)
    return problem === undefined ? { ok: true, ...found } : broken(problem)
  }, { isolationLevel: 'repeatable read', accessMode: 'read only' })
