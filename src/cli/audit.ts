import { InvalidArgumentError, Option, type Command } from 'commander'
import { listAudit } from '../audit/audit.js'
import type { AuditRow } from '../audit/entry.js'
import { exportedRow, exportFormats, type ExportFormat } from '../audit/export.js'
import { verifyAudit } from '../audit/verify.js'
import { BackupdError } from '../errors.js'
import { catalogAnchors, storageAnchors } from '../operation/audit/anchors.js'
import { repeated, wholeNumber } from './arguments.js'
import { exportAudit } from './audit-export.js'
import { addFilters, filterOf, type FilterOptions } from './audit-filter.js'
import { defineLogs } from './audit-logs.js'
import type { Context, Run } from './context.js'
import { environmentOf } from './environment.js'
import { table } from './output.js'

const line = (row: AuditRow) => ({
  ...row, at: row.created_at, event: row.event_type, who: row.username,
  resource: [row.resource_type, row.resource_name ?? row.resource_id].filter((text) => text !== null).join(' '),
})

const list = async (context: Context, { limit, ...options }: FilterOptions & { limit: number }): Promise<void> => {
  const rows = (await listAudit((await context.catalog()).db, { ...filterOf(options), limit })).map((row) => exportedRow(row).row)
  context.out.result(rows, () => table(['id', 'at', 'who', 'event', 'resource', 'status', 'risk_level'], rows.map(line), 'There are no such entries in the audit trail.'))
}

interface VerifyOptions {
  storage: string[]
  knownChain: string[]
}

const verify = async (context: Context, { storage, knownChain }: VerifyOptions): Promise<void> => {
  const env = await environmentOf(context)
  const sources = [await catalogAnchors(env)]
  for (const name of storage) sources.push(await storageAnchors(env, name))
  const warnings = [...new Set(sources.flatMap((source) => source.warnings))]
  const result = await verifyAudit(env.catalog.db, { anchors: sources.flatMap(({ anchors }) => anchors), knownChains: knownChain })
  const foreign = result.foreign === 0 ? '' : `; ${result.foreign} rows of other programs are not part of it`
  const manifests = sources.reduce((sum, source) => sum + source.manifests, 0)
  for (const warning of warnings) context.out.line(`warning: ${warning}`)
  context.out.result({ ...result, manifests, warnings }, () => result.ok
    ? `the audit trail is whole: ${result.checked} entries, the last with hash ${result.head.hash}${foreign}\n${result.anchors} of ${manifests} manifests name entries of it, and agree`
    : `${result.checked} entries are whole up to the break${foreign}`)
  if (result.ok) return
  throw new BackupdError('audit.broken', `the audit trail was tampered with: ${result.broken?.message ?? ''}`, {
    kind: 'integrity', details: { ...result.broken },
    hint: result.broken?.reason === 'replaced' && result.broken.seq === 1
      ? 'If the catalog was made anew since, such as by "backupd catalog rebuild", that was to be: say so with --known-chain and the hash of that first entry.'
      : 'Compare it with an earlier export, and find out who can write to the catalog.',
  })
}

const chainHash = (text: string, before: readonly string[]): string[] => {
  if (!/^[0-9a-f]{64}$/.test(text)) throw new InvalidArgumentError('It must be the hash of a first entry, 64 hexadecimal digits.')
  return [...before, text]
}

/** `backupd audit list | verify | export | archive | logs`. */
export const define = (command: Command, run: Run): void => {
  addFilters(command.command('list').description('entries, newest first'))
    .option('--limit <n>', 'how many at most', wholeNumber(1, 1_000_000), 50)
    .action((options: FilterOptions & { limit: number }) => run((context) => list(context, options)))
  command.command('verify')
    .description('follow the chain of hashes; exit code 5 when an entry was changed, removed or added by hand')
    .option('--storage <name>', 'compare with the manifests that lie in this storage too, not only with the catalog\'s copies (repeatable)', repeated, [])
    .option('--known-chain <hash>', 'an earlier trail, by the hash of its first entry, whose end is known about (repeatable)', chainHash, [])
    .action((options: VerifyOptions) => run((context) => verify(context, options)))
  addFilters(command.command('export').description('all entries, oldest first'))
    .addOption(new Option('--format <format>', 'jsonl can be checked without backupd, csv is for spreadsheets').choices(exportFormats).default('jsonl'))
    .option('--out <file>', 'a new file (default: standard output)')
    .action(({ format, out, ...options }: FilterOptions & { format: ExportFormat; out?: string }) => run((context) => {
      if (context.out.json && out === undefined && format === 'csv') {
        throw new BackupdError('usage', '--json and --format csv cannot both go to standard output', { kind: 'usage', hint: 'Leave one away, or name a file with --out.' })
      }
      return exportAudit(context, { filter: filterOf(options), format, out })
    }))
  defineLogs(command, run)
}
