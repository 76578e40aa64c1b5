import { createHash } from 'node:crypto'
import { jsonText } from '../catalog/schema/columns.js'
import type { backupAuditLogs } from '../catalog/schema.js'
import { redact } from '../secret.js'

export type AuditRow = typeof backupAuditLogs.$inferSelect

/** The link that every entry of ours carries in `event_data.chain`. */
export interface Link {
  /** 1, 2, 3 and so on, without a gap. */
  seq: number
  /** The hash of the entry before; 64 zeros for the first. */
  prev: string
  /** SHA-256, hex, of the canonical JSON of the entry's content, `seq` and `prev`. */
  hash: string
}

/** `prev` of the first entry. */
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

const canonical = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(canonical)
  if (typeof value !== 'object' || value === null) return value
  const sorted = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(sorted.map(([key, item]) => [key, canonical(item)]))
}

/** JSON with the keys of all objects in order: the same text for the same content, whatever column type it went through. */
export const canonicalJson = (value: unknown): string => JSON.stringify(canonical(value))

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)

/** The link in an entry, or undefined when the entry is another program's. */
export const linkOf = ({ event_data }: Pick<AuditRow, 'event_data'>): Link | undefined => {
  const chain = isObject(event_data) ? event_data['chain'] : undefined
  if (!isObject(chain)) return undefined
  const { seq, prev, hash } = chain
  return typeof seq === 'number' && typeof prev === 'string' && typeof hash === 'string' ? { seq, prev, hash } : undefined
}

type Content = Omit<AuditRow, 'id' | 'updated_at' | 'chain_seq' | 'prev_hash' | 'hash'>

/** The hash of an entry whose `event_data` may or may not have its link yet. */
export const hashOf = (row: Content, seq: number, prev: string): string => {
  const data = isObject(row.event_data) ? Object.fromEntries(Object.entries(row.event_data).filter(([key]) => key !== 'chain')) : row.event_data
  const content = {
    audit_id: row.audit_id, event_type: row.event_type, event_category: row.event_category, user_id: row.user_id, username: row.username,
    user_ip: row.user_ip, user_agent: row.user_agent, resource_type: row.resource_type, resource_id: row.resource_id,
    resource_name: row.resource_name, action: row.action, status: row.status, event_data: data, before_state: row.before_state,
    after_state: row.after_state, risk_level: row.risk_level, compliance_tags: row.compliance_tags, session_id: row.session_id,
    correlation_id: row.correlation_id, created_at: row.created_at.toISOString(),
  }
  return createHash('sha256').update(canonicalJson({ content, seq, prev })).digest('hex')
}
