import { Option, type Command } from 'commander'
import type { StorageRow } from '../catalog/storages.js'
import { BackupdError } from '../errors.js'
import { addStorage, dropStorage, needStorage, storageView, switchStorage, testStorage, type StorageTest } from '../operation/settings/storages.js'
import { sweepStorage, type Sweep } from '../operation/sweep.js'
import { listStorages } from '../catalog/storages.js'
import { configKeys, storageBackends } from '../storage/registry.js'
import { repeated, wholeNumber } from './arguments.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'
import { bytes, facts, table } from './output.js'
import { shellWord } from '../shell.js'

const types = Object.keys(storageBackends)

const addHelp = (): string => `
Keys of each type:
${types.map((type) => `  ${type.padEnd(11)} ${configKeys(type).join(', ')}`).join('\n')}
Secrets are kept sealed in the catalog and never shown. A value may be a reference:
  --set 'secret_access_key={"$env": "S3_SECRET"}'   --set 'password={"$file": "/run/credentials/sftp"}'`

const state = (row: StorageRow): string =>
  !row.is_active ? 'disabled' : row.last_health_check === null ? 'not tested' : row.is_healthy ? 'healthy' : 'not healthy'

const defineAdd = (command: Command, run: Run): void => {
  command.command('add').description('add a place for backups').argument('<name>', 'what to call it')
    .addOption(new Option('--type <type>', 'kind of storage').choices(types).makeOptionMandatory())
    .option('--set <key=value>', 'a key of its configuration; several times', repeated, [])
    .option('--description <text>', 'for people')
    .addHelpText('after', addHelp)
    .action((name: string, options: { type: string; set: string[]; description?: string }) =>
      run(async (context) => {
        const { storage, warnings } = await addStorage(await environmentOf(context), { name, ...options })
        for (const warning of warnings) context.out.line(`warning: ${warning}`)
        context.out.result(storage, () => `storage ${name} added; "backupd storage test ${shellWord(name)}" tries it`)
      }))
}

const testText = ({ steps, setUp, meaning, leastRights, concerns }: StorageTest): string => [
  table(['step', 'outcome', 'message'], steps.map((step) => ({ ...step, step: step.name })), ''),
  '',
  ...concerns.map((concern) => `warning: ${concern}`),
  `set-up: ${setUp}: ${meaning}`,
  `least rights: ${leastRights} (ready to use in docs/storage.md)`,
].join('\n')

const defineTest = (command: Command, run: Run): void => {
  command.command('test').description('write, read back, list and remove a small object').argument('<name>', 'name of the storage')
    .action((name: string) =>
      run(async (context) => {
        const env = await environmentOf(context)
        const found = await testStorage(env, await needStorage(env.catalog.db, name))
        const { healthy, message, steps, setUp, meaning, leastRights, concerns } = found
        context.out.result({ name, healthy, set_up: setUp, meaning, steps, least_rights: leastRights, concerns }, () => testText(found))
        if (!healthy) throw new BackupdError('storage.unfit', `storage ${name} cannot hold backups as it is: ${message}`)
      }))
}

const defineSwitches = (command: Command, run: Run): void => {
  for (const [verb, active] of [['enable', true], ['disable', false]] as const) {
    command.command(verb).description(active ? 'let backups go to it again' : 'let no new backup go to it; what is in it stays readable')
      .argument('<name>', 'name of the storage')
      .action((name: string) =>
        run(async (context) => {
          const { storage, schedules } = await switchStorage(await environmentOf(context), name, active)
          if (!active && schedules.length > 0) context.out.line(`warning: backups of ${schedules.join(', ')} will fail until it is enabled again`)
          context.out.result(storage, () => `storage ${name} ${verb}d`)
        }))
  }
}

const sweepText = ({ folders, uploads, remaining }: Sweep, dryRun: boolean): string => {
  const verb = dryRun ? 'would remove' : 'removed'
  const lines = [
    ...folders.map(({ folder, objects, size }) => `${verb} ${folder}/: no manifest, ${objects} ${objects === 1 ? 'object' : 'objects'}, ${bytes(size)}`),
    ...uploads.map((key) => `${verb} the abandoned upload of ${key}`),
    ...remaining.map(({ key, reason }) => (key === '' ? reason : `left ${key}: ${reason}`)),
    ...(dryRun ? ['abandoned uploads are not looked for in a dry run'] : []),
  ]
  return lines.length === 0 ? 'there is nothing to remove' : lines.join('\n')
}

const defineSweep = (command: Command, run: Run): void => {
  command.command('sweep').description('remove what no backup is: folders without a manifest, and abandoned uploads').argument('<name>', 'name of the storage')
    .option('--older-than <hours>', 'leave alone what was touched since', wholeNumber(0, 1_000_000), 24)
    .option('--dry-run', 'say what would be removed')
    .addHelpText('after', '\nWhat a run that is going on has stored is left alone, whatever its age; of other catalogs that use this storage nothing is known here.')
    .action((name: string, { olderThan, dryRun = false }: { olderThan: number; dryRun?: boolean }) =>
      run(async (context) => {
        const env = await environmentOf(context)
        const sweep = await sweepStorage(env, await needStorage(env.catalog.db, name), { olderThan, dryRun })
        context.out.result({ name, dry_run: dryRun, ...sweep }, () => sweepText(sweep, dryRun))
      }))
}

/** `backupd storage add | list | test | sweep | enable | disable | remove`. */
export const define = (command: Command, run: Run): void => {
  defineAdd(command, run)
  command.command('list').description('all storages').action(() =>
    run(async (context) => {
      const storages = (await listStorages((await context.catalog()).db)).map(storageView)
      const lines = storages.map((row) => ({ ...row, type: row.backend_type, state: state(row), backups: row.total_backups, size: bytes(row.total_size_bytes), config: row.config_data }))
      context.out.result(storages, () => table(['name', 'type', 'state', 'backups', 'size', 'config', 'description'], lines, 'There are no storages: add one with "backupd storage add NAME --type TYPE".'))
    }))
  defineTest(command, run)
  defineSweep(command, run)
  defineSwitches(command, run)
  command.command('remove').description('remove a storage that nothing refers to; objects in it stay').argument('<name>', 'name of the storage')
    .action((name: string) =>
      run(async (context) => {
        const removed = await dropStorage(await environmentOf(context), name)
        context.out.result(removed, () => facts({ removed: name, objects: 'left as they are' }))
      }))
}
