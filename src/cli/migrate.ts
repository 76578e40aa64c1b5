import type { Command } from 'commander'
import { resolve } from 'node:path'
import { openCatalog, type Catalog } from '../catalog/connect.js'
import { migrate, migrationStatus, type AppliedMigration, type MigrationStatus } from '../catalog/migrate.js'
import { migrateDown } from '../catalog/migrate-down.js'
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
  const adopted = migrations.flatMap((migration) => migration.adopted)
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
    .requiredOption('--export <folder>', 'where to write the rows and columns that are dropped')
    .action((options: { to: number; export: string }) =>
      run((context) => withUnmigrated(context, async ({ url, description }) => {
        const folder = resolve(options.export)
        const { reverted, files } = await migrateDown(url, options.to, folder, { signal: context.signal, log: context.log })
        context.out.result({ catalog: description, reverted, files }, () => reverted.length === 0
          ? `the catalog ${description} has no more than ${options.to} migrations: nothing was taken back`
          : `the catalog ${description}: took back ${reverted.join(', ')}\nwhat was dropped is in\n${files.map((file) => `  ${file}`).join('\n')}`)
      })))
}
