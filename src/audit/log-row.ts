import { createHash, sign, verify, type KeyObject } from 'node:crypto'
import { logColumns, type LogRow } from '../catalog/audit-logs.js'
import { canonicalJson } from './canonical.js'

// What is done to a row after it was written: sealing and archiving it.
const later = ['checksum', 'signature', 'archived', 'archived_at', 'updated_at']

/** Columns that the checksum of a row covers. */
export const coveredColumns = logColumns.filter((name) => !later.includes(name))

/** The canonical form of a row, which its checksum and its signature are taken of: RFC 8785, as docs/audit.md specifies. */
export const canonicalRow = (row: LogRow): string => canonicalJson(Object.fromEntries(coveredColumns.map((name) => [name, row[name] ?? null])))

/** SHA-256 of the canonical form, 64 hexadecimal digits: what the column `checksum` has room for. */
export const checksumOf = (row: LogRow): string => createHash('sha256').update(canonicalRow(row)).digest('hex')

/** Ed25519 signature of the canonical form, base64: what the column `signature` has room for. */
export const signatureOf = (row: LogRow, key: KeyObject): string => sign(null, Buffer.from(canonicalRow(row)), key).toString('base64')

/** Whether the signature in the row is one of the canonical form by the owner of `key`. */
export const signatureHolds = (row: LogRow, key: KeyObject): boolean =>
  row.signature !== null && verify(null, Buffer.from(canonicalRow(row)), key, Buffer.from(row.signature, 'base64'))
