import type { Command } from 'commander'
import { BackupdError } from '../errors.js'
import { keepPresence } from '../daemon/presence.js'
import { resolveValue } from '../encryption/secrets.js'
import { restoreCatalog, type RestoredCatalog } from '../operation/catalog-restore.js'
import { rebuildCatalog, type Rebuild } from '../operation/rebuild.js'
import { parseGiven } from '../operation/references.js'
import { resolving } from '../operation/sources.js'
import { needStorage } from '../operation/storage-settings.js'
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

const restoredText = ({ backup_id: id, started_at: at, tables, rows, settled, found, warnings }: RestoredCatalog): string => [
  `the catalog of ${at.toISOString()} is restored from ${id}: ${counted(tables, 'table')}, ${counted(rows, 'row')}`,
  `ended in it: ${settled.removed.length} running, ${settled.cancelled} waiting, ${settled.verifying} being verified, ${counted(settled.restores, 'restore')}`,
  `${counted(found, 'newer backup')} found in the storage and recorded in it`,
  ...warnings.map((text) => `warning: ${text}`),
  'To use it, set BACKUPD_DATABASE_URL to that database and start the daemon. Passwords in it open with the BACKUPD_SECRET_KEY that they were sealed under.',
].join('\n')

const restore = async (context: Context, { storage: name, to, backup }: { storage: string; to: string; backup?: string }): Promise<void> => {
  const env = await environmentOf(context)
  const url = await resolveValue(parseGiven(to, '--to'), { ...resolving(context), field: '--to' })
  const leave = await keepPresence(env, 'cli')
  try {
    const result = await restoreCatalog(env, await needStorage(env.catalog.db, name), { url, backup })
    context.out.result({ storage: name, ...result }, () => restoredText(result))
  } finally {
    await leave()
  }
}

const restoreHelp = `
For a catalog that was lost: add the storage with "backupd storage add" to an empty catalog, and put the private key at hand first. The database
of --to must not be there yet; nothing that is there is changed. What was running when the backup was made is ended in the restored catalog,
and backups that are newer are found and recorded.
Exit codes: 1 failed or the database is there already, 3 no backup of a catalog in the storage, 4 the key or target is not set up, 5 the backup is damaged.`

/** `backupd catalog rebuild | restore`. */
export const define = (command: Command, run: Run): void => {
  command.command('rebuild').description('find every backup of a storage from its manifests alone').requiredOption('--storage <name>', 'where to look')
    .option('--dry-run', 'say what would be recorded')
    .addHelpText('after', rebuildHelp)
    .action((options: { storage: string; dryRun?: boolean }) => run((context) => rebuild(context, options)))
  command.command('restore').description('bring back the catalog itself from its newest backup, into a new database').requiredOption('--storage <name>', 'where the backup is')
    .requiredOption('--to <url>', 'the database to make: a URL, or {"$env":"NAME"} or {"$file":"path"} that hold one')
    .option('--backup <execution>', 'another backup than the newest')
    .addHelpText('after', restoreHelp)
    .action((options: { storage: string; to: string; backup?: string }) => run((context) => restore(context, options)))
}
