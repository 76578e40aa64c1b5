import { messageOf } from '../errors.js'
import { redact } from '../secret.js'
import type { ByteSource } from '../storage/storage.js'
import type { Connection } from './connection.js'
import { onServer } from './database.js'
import { isConnectionFailure } from './failures.js'

export interface GlobalsReport {
  applied: number
  /** Roles and tablespaces that are there already and were left as they are. */
  skipped: string[]
  /** What did not work, without the statement's values: they may hold a password. */
  failed: { what: string; reason: string }[]
}

/** Cuts the SQL of pg_dumpall into statements. Quotes inside literals are always written twice there, so counting them is enough. */
export const splitStatements = (text: string): string[] => {
  const statements: string[] = []
  let current = ''
  let open: string | undefined
  const lines = text.split('\n')
  for (const line of lines) {
    if (open === undefined && current === '' && (line.trim() === '' || line.startsWith('--') || line.startsWith('\\'))) continue
    current += current === '' ? line : `\n${line}`
    for (const char of line) {
      if (open === undefined && (char === "'" || char === '"')) open = char
      else if (char === open) open = undefined
    }
    if (open === undefined && line.endsWith(';')) {
      statements.push(current)
      current = ''
    }
  }
  return statements
}

const subject = /^(CREATE|ALTER|COMMENT ON|GRANT|REVOKE|SET|SECURITY LABEL) ?(ROLE|TABLESPACE|USER MAPPING)? ?((?:"(?:[^"]|"")+")|[^\s;"]+)?/

const unquote = (name: string): string => (name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name)

/** Runs what `dumpGlobals` gave. A role or tablespace that the target has is skipped whole, with its password and settings. */
export const restoreGlobals = async (connection: Connection, source: ByteSource, signal: AbortSignal): Promise<GlobalsReport> => {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(chunk)
  const statements = splitStatements(Buffer.concat(chunks).toString('utf8'))
  return onServer(connection, signal, async (sql) => {
    const report: GlobalsReport = { applied: 0, skipped: [], failed: [] }
    const there = await sql<{ name: string }[]>`
      SELECT 'ROLE ' || rolname AS name FROM pg_catalog.pg_roles UNION ALL SELECT 'TABLESPACE ' || spcname FROM pg_catalog.pg_tablespace`
    const existing = new Set(there.map(({ name }) => name))
    for (const statement of statements) {
      const [, verb = '', kind = '', name = ''] = subject.exec(statement) ?? []
      const object = `${kind} ${unquote(name)}`
      if (kind !== '' && existing.has(object)) {
        if (verb === 'CREATE') report.skipped.push(object)
        continue
      }
      try {
        await sql.unsafe(statement)
        report.applied += 1
      } catch (error) {
        if (isConnectionFailure(error)) throw error
        report.failed.push({ what: `${verb} ${object}`.trim(), reason: redact(messageOf(error)) })
      }
    }
    return report
  })
}
