import { Option, type Command } from 'commander'
import { open } from 'node:fs/promises'
import { resolve } from 'node:path'
import { listAudit, readAudit, type AuditFilter } from '../audit/audit.js'
import type { AuditRow } from '../audit/entry.js'
import { verifyAudit } from '../audit/verify.js'
import { auditCategories, type AuditCategory } from '../catalog/statuses.js'
import { asBackupdError, BackupdError, throwIfAborted } from '../errors.js'
import { redact } from '../secret.js'
import { wholeNumber } from './arguments.js'
import type { Context, Run } from './context.js'
import { table } from './output.js'

interface FilterOptions {
  category?: AuditCategory
}

const filterOf = ({ category }: FilterOptions): Omit<AuditFilter, 'limit'> => (category === undefined ? {} : { category })

const line = (row: AuditRow) => ({
  ...row, at: row.created_at, event: row.event_type, who: row.username,
  resource: [row.resource_type, row.resource_name ?? row.resource_id].filter((text) => text !== null).join(' '),
})

const list = async (context: Context, { limit, ...options }: FilterOptions & { limit: number }): Promise<void> => {
  const rows = await listAudit((await context.catalog()).db, { ...filterOf(options), limit })
  context.out.result(rows, () => table(['id', 'at', 'who', 'event', 'resource', 'status', 'risk_level'], rows.map(line), 'The audit trail is empty.'))
}

const verify = async (context: Context): Promise<void> => {
  const result = await verifyAudit((await context.catalog()).db)
  const foreign = result.foreign === 0 ? '' : `; ${result.foreign} entries of other programs are not part of it`
  context.out.result(result, () => result.ok
    ? `the audit trail is whole: ${result.checked} entries, the last with hash ${result.head.hash}${foreign}`
    : `${result.checked} entries are whole up to the break${foreign}`)
  if (result.ok) return
  throw new BackupdError('audit.broken', `the audit trail was tampered with: ${result.broken?.message ?? ''}`, {
    kind: 'integrity', hint: 'Compare it with an earlier export, and find out who can write to the catalog.', details: { ...result.broken },
  })
}

/** Writes entries as JSON lines to a new file of mode 0600; resolves to how many. */
const exportTo = async (file: string, rows: AsyncIterable<AuditRow>, signal: AbortSignal): Promise<number> => {
  const failed = (error: unknown): BackupdError =>
    asBackupdError(error, 'audit.export', `the audit trail could not be written to ${file}`, { hint: 'Name a new file, in a folder that this user may write to.' })
  const handle = await open(file, 'wx', 0o600).catch((error: unknown) => { throw failed(error) })
  let count = 0
  try {
    for await (const row of rows) {
      throwIfAborted(signal)
      await handle.appendFile(`${redact(JSON.stringify(row))}\n`).catch((error: unknown) => { throw failed(error) })
      count += 1
    }
    await handle.sync()
  } finally {
    await handle.close()
  }
  return count
}

const collect = async (rows: AsyncIterable<AuditRow>): Promise<AuditRow[]> => {
  const all: AuditRow[] = []
  for await (const row of rows) all.push(row)
  return all
}

const exportAll = async (context: Context, { out, ...options }: FilterOptions & { out?: string }): Promise<void> => {
  const rows = readAudit((await context.catalog()).db, filterOf(options))
  if (out !== undefined) {
    const file = resolve(out)
    const entries = await exportTo(file, rows, context.signal)
    context.out.result({ file, entries }, () => `${entries} entries written to ${file}`)
  } else if (context.out.json) {
    context.out.result(await collect(rows), () => '')
  } else {
    for await (const row of rows) {
      throwIfAborted(context.signal)
      context.out.line(JSON.stringify(row))
    }
  }
}

const category = (): Option => new Option('--category <name>', 'only entries of this category').choices(auditCategories)

/** `backupd audit list | verify | export`. */
export const define = (command: Command, run: Run): void => {
  command.command('list').description('entries, newest first').addOption(category())
    .option('--limit <n>', 'how many at most', wholeNumber(1, 1_000_000), 50)
    .action((options: FilterOptions & { limit: number }) => run((context) => list(context, options)))
  command.command('verify').description('follow the chain of hashes; exit code 5 when an entry was changed, removed or moved').action(() => run(verify))
  command.command('export').description('all entries, oldest first, one JSON object a line').addOption(category())
    .option('--out <file>', 'a new file (default: standard output)')
    .action((options: FilterOptions & { out?: string }) => run((context) => exportAll(context, options)))
}
