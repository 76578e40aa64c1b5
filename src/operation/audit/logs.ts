import type { KeyObject } from 'node:crypto'
import { writeAudit } from '../../audit/audit.js'
import { checksumOf, signatureHolds, signatureOf } from '../../audit/log-row.js'
import { describePublic } from '../../audit/signing-key.js'
import { lockUnsigned, readLogs, storeSignatures, type LogRange, type LogRow } from '../../catalog/audit-logs.js'
import { throwIfAborted } from '../../errors.js'
import type { Environment } from '../environment.js'

const BATCH = 500
/** More than these are only counted. */
const MOST_NAMED = 20

/** A row that is not what it was. */
export interface BadLog {
  id: number
  reason: 'checksum' | 'signature'
  message: string
}

const checksumWrong = ({ id }: LogRow): BadLog => ({ id, reason: 'checksum', message: `row ${id} of audit_logs is not what its checksum says` })

export interface Signing {
  signed: number
  /** Rows whose checksum is another one; they were not signed. */
  bad: BadLog[]
  bad_count: number
  fingerprint: string
}

const sealBatch = (env: Environment, key: KeyObject, last: number, range: LogRange, result: Signing): Promise<number | undefined> =>
  env.catalog.db.transaction(async (tx) => {
    const rows = await lockUnsigned(tx, last, range, BATCH)
    const end = rows.at(-1)
    if (end === undefined) return undefined
    const good: { id: number; checksum: string; signature: string }[] = []
    for (const row of rows) {
      const checksum = checksumOf(row)
      if (row.checksum === null || row.checksum === checksum) good.push({ id: row.id, checksum, signature: signatureOf(row, key) })
      else if ((result.bad_count += 1) <= MOST_NAMED) result.bad.push(checksumWrong(row))
    }
    if (good.length > 0) {
      await storeSignatures(tx, good)
      await writeAudit(tx, {
        event_type: 'audit_logs.signed', event_category: 'access', action: 'update', actor: env.actor, resource: { type: 'audit_logs' },
        event_data: { rows: good.length, first_id: good[0]?.id, last_id: good.at(-1)?.id, key: result.fingerprint },
      })
      result.signed += good.length
    }
    return end.id
  })

/** Gives every row of `audit_logs` in the range that has no signature a checksum and one. A row whose checksum is wrong is left and told. On record. */
export const signLogs = async (env: Environment, key: KeyObject, range: LogRange): Promise<Signing> => {
  const result: Signing = { signed: 0, bad: [], bad_count: 0, fingerprint: describePublic(key).fingerprint }
  for (let last: number | undefined = 0; last !== undefined; ) {
    throwIfAborted(env.signal)
    last = await sealBatch(env, key, last, range, result)
  }
  return result
}

export interface LogVerification {
  ok: boolean
  /** Rows with a signature that holds. */
  signed: number
  /** Rows with a checksum that is right, and no signature. */
  checksummed: number
  /** Rows with neither, of which nothing can be said. */
  unsigned: number
  /** The first bad ones, by their ids. */
  bad: BadLog[]
  bad_count: number
  fingerprint: string
}

const judge = (row: LogRow, key: KeyObject): BadLog | 'signed' | 'checksummed' | 'unsigned' => {
  if (row.checksum !== null && row.checksum !== checksumOf(row)) return checksumWrong(row)
  if (row.signature === null) return row.checksum === null ? 'unsigned' : 'checksummed'
  return signatureHolds(row, key) ? 'signed' : { id: row.id, reason: 'signature', message: `the signature of row ${row.id} of audit_logs is not one of this row by this key` }
}

/** Compares every row of `audit_logs` in the range with its checksum and signature. */
export const verifyLogs = async ({ catalog, signal }: Environment, key: KeyObject, range: LogRange): Promise<LogVerification> => {
  const result: LogVerification = { ok: true, signed: 0, checksummed: 0, unsigned: 0, bad: [], bad_count: 0, fingerprint: describePublic(key).fingerprint }
  for await (const rows of readLogs(catalog.db, range)) {
    throwIfAborted(signal)
    for (const row of rows) {
      const found = judge(row, key)
      if (typeof found === 'string') result[found] += 1
      else if ((result.bad_count += 1) <= MOST_NAMED) result.bad.push(found)
    }
  }
  return { ...result, ok: result.bad_count === 0 }
}
