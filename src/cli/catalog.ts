import type { Command } from 'commander'
import { BackupdError } from '../errors.js'
import { restoreCatalog, type CatalogRestore } from '../operation/catalog-restore.js'
import { rebuildCatalog, type Rebuild } from '../operation/rebuild.js'
import { needStorage } from '../operation/settings/storages.js'
import type { Context, Run } from './context.js'
import { environmentOf } from './environment.js'
import { bytes, table } from './output.js'

const MOST_LINES = 50

const counted = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`

const rebuildText = ({ recorded, known, troubles, incomplete, foreign, warnings }: Rebuild, dryRun: boolean): string => {
  // The newest are those that are looked for.
  const shown = recorded.slice(-MOST_LINES).map((row) => ({ ...row, id: row.id, started: new Date(row.started_at), size: bytes(row.size) }))
  const left = recorded.length - shown.length
  return [
    ...(recorded.length === 0 ? [] : [table(['id', 'backup_id', 'schedule', 'source', 'status', 'started', 'size'], shown, ''), ...(left > 0 ? [`and ${left} before these`] : []), '']),
    `${counted(recorded.length, 'backup')} ${dryRun ? 'would be recorded' : 'recorded'}, ${known} on record before`,
    ...(incomplete === 0 ? [] : [`${counted(incomplete, 'folder')} without a manifest: runs that have not ended, or failed`]),
    ...(foreign === 0 ? [] : [`${counted(foreign, 'object')} of something else, left alone`]),
    ...troubles.map(({ kind, folder, reason }) => `${kind}: ${folder}: ${reason}`),
    ...warnings.map((text) => `warning: ${text}`),
  ].join('\n')
}

/** The error that an incomplete rebuild ends with: 5 where something is damaged, else 1. */
const partial = ({ troubles }: Rebuild, dryRun: boolean): BackupdError => {
  const damaged = troubles.filter(({ kind }) => kind === 'invalid' || kind === 'damaged')
  const newer = troubles.filter(({ kind }) => kind === 'newer')
  const unreadable = troubles.filter(({ kind }) => kind === 'unreadable')
  const parts = [
    ...(damaged.length === 0 ? [] : [`${counted(damaged.length, 'backup')} damaged`]),
    ...(newer.length === 0 ? [] : [`${counted(newer.length, 'backup')} of a newer format`]),
    ...(unreadable.length === 0 ? [] : [`${counted(unreadable.length, 'manifest')} that the storage does not give`]),
  ]
  const rest = dryRun ? 'all others could be recorded' : 'all others are on record'
  return new BackupdError('catalog.rebuild_partial', `the storage holds ${parts.join(', ')}; ${rest}`, {
    kind: damaged.length > 0 ? 'integrity' : 'failed',
    hint: damaged.length > 0 ? 'Do not rely on those that are damaged; the list above names them.' : newer.length > 0 ? 'Use the version of backupd that made them, or a later one, and rebuild again.' : 'See the list above, and rebuild again.',
    details: { folders: troubles.slice(0, 100).map(({ folder, kind }) => ({ folder, kind })) },
  })
}

const rebuild = async (context: Context, { storage: name, dryRun = false }: { storage: string; dryRun?: boolean }): Promise<void> => {
  const env = await environmentOf(context)
  const result = await rebuildCatalog(env, await needStorage(env.catalog.db, name), { dryRun })
  context.out.result({ storage: name, dry_run: dryRun, ...result }, () => rebuildText(result, dryRun))
  if (result.troubles.length > 0) throw partial(result, dryRun)
}

const rebuildHelp = `
For a catalog that was lost, or lacks what is in the storage: add the storage with "backupd storage add" first. Needs no private key. What is on
record already stays as it is, and nothing in the storage is changed. "latest:SCHEDULE" finds backups by the name in their manifests, also
without such a schedule. A backup that is in two storages is a copy in the second one that is rebuilt from.
Exit codes: 0 all found, 1 some could not be read or are of a newer format, 5 some are damaged; all others are recorded in each case.`

const restoreText = ({ backupId, madeAt, settled, sealed, rebuild }: CatalogRestore): string => [
  `the catalog is back, as it was at ${madeAt} (${backupId})`,
  ...(settled.forgotten.length === 0 ? [] : [`runs that were under way then, left out: ${settled.forgotten.join(', ')}`]),
  ...(settled.cancelled + settled.recoveries === 0 ? [] : [`${settled.cancelled} waiting runs cancelled, ${settled.recoveries} restores ended`]),
  ...sealed.map(({ name, reason }) => `warning: ${name}: ${reason}`),
  rebuildText(rebuild, false),
].join('\n')

interface RestoreOptions { storage: string; backup?: string; replace?: boolean }

const restore = async (context: Context, { storage, backup, replace = false }: RestoreOptions): Promise<void> => {
  const env = await environmentOf(context)
  const result = await restoreCatalog(env, await needStorage(env.catalog.db, storage), { backup, replace })
  context.out.result({ storage, backup_id: result.backupId, made_at: result.madeAt, settled: result.settled, sealed: result.sealed, rebuild: result.rebuild }, () => restoreText(result))
  if (result.rebuild.troubles.length > 0) throw partial(result.rebuild, false)
}

const restoreHelp = `
The daemon backs up its catalog to every storage once a day. On a new machine: add the storage with "backupd storage add", name the private key in
BACKUPD_IDENTITY_FILE and the old secret key in BACKUPD_SECRET_KEY, then restore; stop daemons first. Backups that are newer than the catalog's are
found as "catalog rebuild" finds them. The catalog has to hold nothing but the storage and what a rebuild found.
Exit codes: as of "catalog rebuild"; 3 there is no such backup, 4 the catalog is in use.`

/** `backupd catalog rebuild` and `restore`. */
export const define = (command: Command, run: Run): void => {
  command.command('restore').description('bring back the catalog from its newest backup in a storage').requiredOption('--storage <name>', 'where to look')
    .option('--backup <backup_id>', 'this one instead of the newest')
    .option('--replace', 'also where the catalog is in use: all of its content is replaced')
    .addHelpText('after', restoreHelp)
    .action((options: RestoreOptions) => run((context) => restore(context, options)))
  command.command('rebuild').description('find every backup of a storage from its manifests alone').requiredOption('--storage <name>', 'where to look')
    .option('--dry-run', 'say what would be recorded')
    .addHelpText('after', rebuildHelp)
    .action((options: { storage: string; dryRun?: boolean }) => run((context) => rebuild(context, options)))
}
