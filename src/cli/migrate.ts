import type { Command } from 'commander'
import { resolve } from 'node:path'
import { openCatalog, type Catalog } from '../catalog/connect.js'
import { migrate, migrationStatus, type AppliedMigration, type MigrationStatus } from '../catalog/migrate.js'
import { migrateDown, type DownResult } from '../catalog/migrate-down.js'
import { lossText } from '../catalog/migrate-loss.js'
import { BackupdError } from '../errors.js'
import { wholeNumber } from './arguments.js'
import type { Context, Run } from './context.js'
import { table } from './output.js'

/** Runs `work` with the catalog as it is, not migrated. */
const withUnmigrated = async (context: Context, work: (catalog: Catalog) => Promise<void>): Promise<void> => {
  const { config, log, signal } = context
  const catalog = await openCatalog({ databaseUrl: config.databaseUrl, stateDir: config.stateDir, log, signal, migrate: false })
  try {
    await work(catalog)
  } finally {
    await catalog.close()
  }
}

const adoption = (migrations: readonly AppliedMigration[]): string => {
  const adopted = migrations.flatMap((migration) => migration.adopted).filter((name) => !name.includes('.'))
  return adopted.length === 0 ? '' : `\n${adopted.length} tables of another application were there and were adopted: ${adopted.join(', ')}`
}

const up = (context: Context): Promise<void> =>
  withUnmigrated(context, async ({ url, description }) => {
    const before = new Set((await migrationStatus(url)).applied.map(({ when }) => when))
    const status = await migrate(url, { signal: context.signal, log: context.log })
    const applied = status.applied.filter(({ when }) => !before.has(when))
    context.out.result({ catalog: description, applied: applied.map(({ tag }) => tag), migrations: status.applied.map(({ tag }) => tag), adopted: status.adopted },
      () => applied.length === 0 ? `the catalog ${description} is up to date` : `the catalog ${description}: applied ${applied.map(({ tag }) => tag).join(', ')}${adoption(applied)}`)
  })

const statusText = (description: string, { applied, pending, unknown }: MigrationStatus): string => {
  const rows = [
    ...applied.map(({ tag, appliedAt, adopted }) => ({ migration: tag, state: unknown.includes(tag) ? 'of a newer backupd' : 'applied', at: appliedAt, adopted_tables: adopted.length === 0 ? null : adopted.join(', ') })),
    ...pending.map((tag) => ({ migration: tag, state: 'pending' })),
  ]
  return `catalog ${description}\n${table(['migration', 'state', 'at', 'adopted_tables'], rows, 'no migrations')}`
}

interface DownCommandOptions {
  to: number
  export?: string
  discardData?: boolean
  dryRun?: boolean
}

const downText = (description: string, { reverted, files, lost }: DownResult, { to, dryRun }: DownCommandOptions): string => {
  if (reverted.length === 0) return `the catalog ${description} has no more than ${to} migrations: nothing was taken back`
  const losses = lost.map((loss) => `  ${lossText(loss)}`)
  if (dryRun === true) return `Of the catalog ${description} this would be taken back: ${reverted.join(', ')}\nand this would be lost:\n${losses.join('\n') || '  nothing'}`
  return [`the catalog ${description}: took back ${reverted.join(', ')}`, 'this was dropped', ...losses, ...(files.length === 0 ? [] : ['and is in', ...files.map((file) => `  ${file}`)])].join('\n')
}

const down = async ({ log, out, signal }: Context, { url, description }: Catalog, options: DownCommandOptions): Promise<void> => {
  if (options.export !== undefined && options.discardData === true) {
    throw new BackupdError('usage', '--export and --discard-data contradict each other', { kind: 'usage', hint: 'Give one of them.' })
  }
  const result = await migrateDown(url, options.to, {
    signal, log, dryRun: options.dryRun === true,
    keep: options.export !== undefined ? { folder: resolve(options.export) } : options.discardData === true ? 'discard' : undefined,
  })
  out.result({ catalog: description, ...result, dry_run: options.dryRun === true }, () => downText(description, result, options))
}

/** `backupd migrate`, `migrate status`, `migrate down --to N --export DIR`. */
export const define = (command: Command, run: Run): void => {
  command.addHelpText('after', '\nEvery command migrates the catalog when it opens it; this one does nothing else, and says what it did.')
  command.action(() => run(up))
  command.command('status').description('what was applied and what would be, changing nothing').action(() =>
    run((context) => withUnmigrated(context, async ({ url, description }) => {
      const status = await migrationStatus(url)
      context.out.result({ catalog: description, ...status }, () => statusText(description, status))
    })))
  command.command('down').description('take migrations back, after writing what is lost with them to files')
    .requiredOption('--to <n>', 'how many migrations to keep', wholeNumber(0, 10_000))
    .option('--export <folder>', 'an empty or a new folder, for the tables and columns that are dropped, as CSV')
    .option('--discard-data', 'drop them without writing them anywhere')
    .option('--dry-run', 'say what would be taken back and lost')
    .action((options: DownCommandOptions) => run((context) => withUnmigrated(context, (catalog) => down(context, catalog, options))))
}
