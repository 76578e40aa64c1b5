import { createHash } from 'node:crypto'
import { jsonText } from '../catalog/schema/columns.js'
import type { backupAuditLogs } from '../catalog/schema.js'
import { redact } from '../secret.js'
import { canonicalJson } from './canonical.js'

export type AuditRow = typeof backupAuditLogs.$inferSelect

/** An entry's place in the chain. */
export interface Link {
  /** 1, 2, 3 and so on, without a gap. */
  chain_seq: number
  /** The hash of the entry before; 64 zeros for the first. */
  prev_hash: string
  /** SHA-256, hex, of the canonical form of the entry. */
  hash: string
}

/** An entry that is part of the chain. */
export type ChainedRow = AuditRow & Link

/** `prev_hash` of the first entry. */
export const beginning = '0'.repeat(64)

const secretName = /password|passphrase|secret|private_key$|account_key|sas_token|connection_string|credentials_json/i

// References such as {"$env": "NAME"} stay: they say where a secret is, not what it is.
const cleanValue = (value: unknown, name = ''): unknown => {
  if (typeof value === 'string') return secretName.test(name) && value !== '' ? '[secret]' : redact(value)
  if (Array.isArray(value)) return value.map((item) => cleanValue(item, name))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, cleanValue(item, key)]))
}

/** The value as it will be read back, without secrets: known ones are masked everywhere, and whatever stands under a secret's name. */
export const clean = (value: unknown): unknown =>
  value === undefined || value === null ? null : cleanValue(JSON.parse(jsonText(value)))

/** Text without secrets and of at most `length` characters, or null. */
export const cleanText = (text: string | undefined, length: number): string | null =>
  text === undefined ? null : [...redact(text.replace(/\0/g, '').replace(/\p{Surrogate}/gu, '\ufffd'))].slice(0, length).join('')

/** Whether a row is part of the chain; the others were written by other programs. */
export const isChained = (row: AuditRow): row is ChainedRow => row.chain_seq !== null && row.prev_hash !== null && row.hash !== null

/** What the hash covers: all columns but `id` and `updated_at`, which the database gives, and the hash itself. */
export type HashedContent = Omit<ChainedRow, 'id' | 'updated_at' | 'hash'>

/** The hash of an entry, over its canonical form as docs/audit.md specifies it. */
export const hashOf = (row: HashedContent): string =>
  createHash('sha256').update(canonicalJson({
    chain_seq: row.chain_seq, prev_hash: row.prev_hash,
    audit_id: row.audit_id, event_type: row.event_type, event_category: row.event_category, user_id: row.user_id, username: row.username,
    user_ip: row.user_ip, user_agent: row.user_agent, resource_type: row.resource_type, resource_id: row.resource_id,
    resource_name: row.resource_name, action: row.action, status: row.status, event_data: row.event_data, before_state: row.before_state,
    after_state: row.after_state, risk_level: row.risk_level, compliance_tags: row.compliance_tags, session_id: row.session_id,
    correlation_id: row.correlation_id, created_at: row.created_at.toISOString(),
  })).digest('hex')
