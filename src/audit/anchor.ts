import { eq, sql } from '../catalog/drizzle.js'
import type { Db } from '../catalog/connect.js'
import { backupAuditChain, backupAuditLogs } from '../catalog/schema.js'

/** A moment of the chain, noted where who can write to the catalog cannot change it: in the manifest of a backup. */
export interface AuditHead {
  /** The hash of the chain's first entry, which tells one chain from another. */
  chain: string
  /** The number of its newest entry. */
  seq: number
  /** The hash of that entry. */
  hash: string
}

/** An `AuditHead` with where it was found. */
export interface Anchor extends AuditHead {
  /** The backup whose manifest holds it. */
  backup_id: string
}

/** Where the chain ends now; undefined while it is empty. */
export const auditHead = async (db: Db): Promise<AuditHead | undefined> => {
  const [head] = await db.select({
    seq: backupAuditChain.seq, hash: backupAuditChain.hash,
    chain: sql<string | null>`(SELECT hash FROM ${backupAuditLogs} WHERE chain_seq = 1)`,
  }).from(backupAuditChain).where(eq(backupAuditChain.id, 1))
  return head === undefined || head.chain === null || head.seq < 1 ? undefined : { chain: head.chain, seq: head.seq, hash: head.hash }
}
