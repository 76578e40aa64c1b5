import { redact } from '../secret.js'
import type { AuditRow } from './entry.js'

export const exportFormats = ['jsonl', 'csv'] as const
export type ExportFormat = (typeof exportFormats)[number]

const columns = [
  'id', 'chain_seq', 'prev_hash', 'hash', 'audit_id', 'created_at', 'event_type', 'event_category', 'action', 'status', 'risk_level', 'user_id', 'username',
  'user_ip', 'user_agent', 'resource_type', 'resource_id', 'resource_name', 'session_id', 'correlation_id', 'event_data', 'before_state', 'after_state',
  'compliance_tags', 'updated_at',
] as const satisfies readonly (keyof AuditRow)[]

// Entries were cleaned when they were written; what became known as a secret since, and rows of other programs, are cleaned now. Value by
// value: over the whole text, a mask could reach across the end of one.
const cleaned = (value: unknown): unknown => {
  if (typeof value === 'string') return redact(value)
  if (value instanceof Date) return value
  if (Array.isArray(value)) return value.map(cleaned)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, cleaned(item)]))
}

/** A row without secrets. `masked` says whether it had any, so that its hash does not hold for what is left. */
export const exportedRow = (row: AuditRow): { row: AuditRow; masked: boolean } => {
  const clean = cleaned(row) as AuditRow
  return { row: clean, masked: JSON.stringify(clean) !== JSON.stringify(row) }
}

const cellText = (value: unknown): string => {
  if (value === null || value === undefined) return ''
  if (value instanceof Date) return value.toISOString()
  return typeof value === 'string' ? value : JSON.stringify(value)
}

// A spreadsheet takes a cell that begins so for a formula, whoever wrote it; an apostrophe makes it text.
const cell = (value: unknown): string => {
  const text = cellText(value)
  const safe = /^[=+\-@\t\r]/.test(text) && typeof value !== 'number' ? `'${text}` : text
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
}

/** The first line of an export, if its format has one. */
export const exportHeading = (format: ExportFormat): string => (format === 'csv' ? `${columns.join(',')}\r\n` : '')

/** A row as text of an export. JSON lines hold it as it is; CSV (RFC 4180) is for reading, with formulas defused. */
export const exportLine = (row: AuditRow, format: ExportFormat): string =>
  format === 'jsonl' ? `${JSON.stringify(row)}\n` : `${columns.map((name) => cell(row[name])).join(',')}\r\n`
