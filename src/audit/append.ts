import { randomUUID } from 'node:crypto'
import { eq, is, sql, PgTransaction } from '../catalog/drizzle.js'
import type { Db } from '../catalog/connect.js'
import { backupAuditChain } from '../catalog/schema.js'
import { beginning, clean, cleanText, hashOf, type ChainedRow } from './entry.js'
import type { AuditEvent } from './event.js'

/** Entries that share one transaction at most, which bounds how long its lock on the chain's end is held. */
const LARGEST_BATCH = 250

const rowOf = ({ actor, resource, ...event }: AuditEvent, created_at: Date, chain_seq: number, prev_hash: string): ChainedRow => {
  const content: Omit<ChainedRow, 'hash'> = {
    id: 0,
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
    created_at,
    updated_at: null,
    chain_seq,
    prev_hash,
  }
  return { ...content, hash: hashOf(content) }
}

const columns = sql.raw(`audit_id, event_type, event_category, user_id, username, user_ip, user_agent, resource_type, resource_id, resource_name,
  action, status, event_data, before_state, after_state, risk_level, compliance_tags, session_id, correlation_id, created_at, chain_seq, prev_hash, hash`)

interface Head {
  seq: number
  hash: string
  now: Date
}

/** The end of the chain, locked until the transaction ends. */
const lockHead = async (tx: Db): Promise<Head> => {
  const read = async (): Promise<Head | undefined> =>
    (await tx.select({
      seq: backupAuditChain.seq,
      hash: backupAuditChain.hash,
      // To the millisecond, which is all that a Date reads back.
      now: sql`date_trunc('milliseconds', clock_timestamp())`.mapWith(backupAuditChain.updated_at),
    }).from(backupAuditChain).where(eq(backupAuditChain.id, 1)).for('update'))[0]
  const found = await read()
  if (found !== undefined) return found
  await tx.insert(backupAuditChain).values({ id: 1, seq: 0, hash: beginning }).onConflictDoNothing()
  const made = await read()
  if (made === undefined) throw new Error('the head of the audit chain is gone')
  return made
}

/** Adds entries to the chain, in order, in the transaction at hand. */
const append = async (tx: Db, events: readonly AuditEvent[]): Promise<ChainedRow[]> => {
  const head = await lockHead(tx)
  let { seq, hash } = head
  const rows = events.map((event) => {
    const row = rowOf(event, head.now, seq + 1, hash)
    seq = row.chain_seq
    hash = row.hash
    return row
  })
  // One statement with one parameter, whatever their number: it is parsed once, and goes and comes in one round.
  const stored = await tx.execute<{ id: number; chain_seq: number }>(sql`
    WITH moved AS (UPDATE backup_audit_chain SET seq = ${seq}, hash = ${hash}, updated_at = ${head.now.toISOString()} WHERE id = 1)
    INSERT INTO backup_audit_logs (${columns})
    SELECT ${columns} FROM json_populate_recordset(NULL::backup_audit_logs, ${JSON.stringify(rows)}::json) ORDER BY chain_seq
    RETURNING id, chain_seq`)
  const ids = new Map([...stored].map((row) => [Number(row.chain_seq), Number(row.id)]))
  return rows.map((row) => ({ ...row, id: ids.get(row.chain_seq) ?? 0 }))
}

interface Waiting {
  event: AuditEvent
  done(row: ChainedRow): void
  failed(error: unknown): void
}

const queues = new WeakMap<Db, Waiting[]>()

// What comes while a transaction is on its way shares the next one, so that many writers wait for the disk together.
const drain = async (db: Db, queue: Waiting[]): Promise<void> => {
  while (queue.length > 0) {
    const batch = queue.splice(0, LARGEST_BATCH)
    try {
      const rows = await db.transaction((tx) => append(tx, batch.map(({ event }) => event)))
      batch.forEach(({ done }, at) => done(rows[at] as ChainedRow))
    } catch (error) {
      for (const { failed } of batch) failed(error)
    }
  }
  queues.delete(db)
}

/**
 * Adds an entry to the chain. In a transaction it is part of that, and other writers wait for its end, so call it last in one; else it
 * resolves when the entry is committed, and calls that come together share a transaction. Secrets are masked; texts are cut to their
 * columns.
 */
export const writeAudit = (db: Db, event: AuditEvent): Promise<ChainedRow> => {
  if (is(db, PgTransaction)) return append(db, [event]).then(([row]) => row as ChainedRow)
  return new Promise((done, failed) => {
    const queue = queues.get(db)
    if (queue !== undefined) {
      queue.push({ event, done, failed })
      return
    }
    const fresh: Waiting[] = [{ event, done, failed }]
    queues.set(db, fresh)
    // In the next turn, so that calls of this one come along.
    setImmediate(() => void drain(db, fresh))
  })
}
