import { open } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { readAudit, type AuditFilter } from '../audit/audit.js'
import type { AuditRow } from '../audit/entry.js'
import { exportedRow, exportHeading, exportLine, type ExportFormat } from '../audit/export.js'
import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import type { Context } from './context.js'

export interface ExportRequest {
  filter: Omit<AuditFilter, 'limit'>
  format: ExportFormat
  out: string | undefined
}

interface Counts {
  entries: number
  /** Entries that had to be masked. */
  masked: number
}

const failed = (file: string, error: unknown): BackupdError => {
  const exists = (error as NodeJS.ErrnoException).code === 'EEXIST'
  return new BackupdError('audit.export', exists ? `${file} is there already, and is not overwritten` : `the audit trail could not be written to ${file}: ${messageOf(error)}`, {
    cause: error, hint: exists ? 'Name a new file.' : 'Name a new file, in a folder that this user may write to and that has room.',
  })
}

/** Calls `write` with the text of the rows, in pieces. */
const writeRows = async (rows: AsyncIterable<AuditRow>, format: ExportFormat, signal: AbortSignal, write: (text: string) => Promise<void>): Promise<Counts> => {
  const counts: Counts = { entries: 0, masked: 0 }
  let text = exportHeading(format)
  for await (const found of rows) {
    throwIfAborted(signal)
    const { row, masked } = exportedRow(found)
    text += exportLine(row, format)
    counts.entries += 1
    if (masked) counts.masked += 1
    if (text.length < 65_536) continue
    await write(text)
    text = ''
  }
  await write(text)
  return counts
}

const syncFolder = async (file: string): Promise<void> => {
  const folder = await open(dirname(file), 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Writes to a new file of mode 0600, on the disk when this resolves. One that could not be finished is left as it is, for who looks into why. */
const writeFile = async (file: string, produce: (write: (text: string) => Promise<void>) => Promise<Counts>): Promise<Counts> => {
  const handle = await open(file, 'wx', 0o600).catch((error: unknown) => { throw failed(file, error) })
  try {
    const counts = await produce((text) => handle.appendFile(text).catch((error: unknown) => { throw failed(file, error) }))
    await handle.sync().catch((error: unknown) => { throw failed(file, error) })
    await syncFolder(file).catch((error: unknown) => { throw failed(file, error) })
    return counts
  } finally {
    await handle.close()
  }
}

const warnOfMasked = ({ out }: Context, { masked }: Counts): void => {
  if (masked > 0) out.line(`warning: ${masked} entries held what is a secret by now; it is masked, so their hashes do not hold for this export`)
}

const collect = async (rows: AsyncIterable<AuditRow>): Promise<AuditRow[]> => {
  const all: AuditRow[] = []
  for await (const row of rows) all.push(exportedRow(row).row)
  return all
}

/** Writes entries, oldest first, as of one moment. Fails with `audit.export` when the file is there or cannot be written. */
export const exportAudit = async (context: Context, { filter, format, out }: ExportRequest): Promise<void> => {
  const { db } = await context.catalog()
  const { signal } = context
  await db.transaction(async (tx) => {
    const rows = readAudit(tx, filter)
    if (out !== undefined) {
      const file = resolve(out)
      const counts = await writeFile(file, (write) => writeRows(rows, format, signal, write))
      warnOfMasked(context, counts)
      context.out.result({ file, format, ...counts }, () => `${counts.entries} entries written to ${file}`)
    } else if (context.out.json) {
      const all = await collect(rows)
      context.out.result(all, () => '')
    } else {
      const counts = await writeRows(rows, format, signal, (text) => context.out.data(text))
      if (counts.masked > 0) context.log.warn({ masked: counts.masked }, 'entries held what is a secret by now; their hashes do not hold for this export')
    }
  }, { isolationLevel: 'repeatable read', accessMode: 'read only' })
}
