import type { Execution } from '../catalog/executions.js'
import { jsonList, jsonObject } from '../catalog/json.js'
import { bytes, facts, table } from './output.js'

const list = (value: unknown): string[] => jsonList(value).map((item) => (typeof item === 'string' ? item : JSON.stringify(item)))

const partsTable = (execution: Execution): string => {
  const text = jsonObject(execution.execution_metadata)['manifest']
  if (typeof text !== 'string') return ''
  const parts = jsonList(jsonObject(JSON.parse(text))['parts']).map(jsonObject)
  const rows = parts.map((part) => ({ part: part['key'], plain: bytes(Number(part['plain_size'])), stored: bytes(Number(part['stored_size'])), sha256: part['sha256'] }))
  return `\n\n${table(['part', 'plain', 'stored', 'sha256'], rows, '')}`
}

/** An execution for a reader. */
export const executionText = (execution: Execution): string => {
  const config = jsonObject(execution.backup_config)
  const details = jsonObject(execution.error_details)
  const stderr = list(details['stderr'])
  const summary = facts({
    execution: execution.id,
    backup_id: execution.backup_id,
    status: execution.expiring_at === null ? execution.status : `${execution.status}, being deleted`,
    pinned: execution.pinned ? 'yes, retention keeps it' : undefined,
    verification: execution.verification_status,
    schedule: config['schedule'],
    source: config['source'],
    copy_of: config['copy_of'],
    storage: config['storage'],
    location: execution.storage_location ?? undefined,
    type: execution.backup_type,
    triggered_by: execution.triggered_by,
    started: execution.started_at,
    completed: execution.completed_at ?? undefined,
    duration: execution.duration_seconds === null ? undefined : `${execution.duration_seconds} s`,
    size: bytes(execution.size_bytes),
    stored: `${bytes(execution.compressed_size_bytes)} (ratio ${execution.compression_ratio.toFixed(2)})`,
    checksum: execution.checksum ?? undefined,
    key_hash: execution.encryption_key_hash ?? undefined,
    attempt: execution.attempt !== null && execution.attempt > 1 ? execution.attempt : undefined,
    error: execution.error_message ?? undefined,
    error_code: details['code'],
    stage: details['code'] === undefined ? undefined : details['stage'],
  })
  const warnings = list(execution.warnings).map((text) => `\nwarning: ${text}`).join('')
  return `${summary}${warnings}${stderr.length > 0 ? `\n\n${stderr.map((line) => `  | ${line}`).join('\n')}` : ''}${partsTable(execution)}`
}
