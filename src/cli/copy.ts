import type { Command } from 'commander'
import { requestCopy } from '../operation/copy-queue.js'
import { needExecution } from '../operation/request.js'
import { needStorage } from '../operation/settings/storages.js'
import type { Context, Run } from './context.js'
import { environmentOf } from './environment.js'
import { executionText } from './execution.js'
import { daemonAlive, followExecution } from './follow.js'
import { runHere } from './run-here.js'

const copy = async (context: Context, reference: string, { to, verify }: { to: string; verify: boolean }): Promise<void> => {
  const env = await environmentOf(context)
  const original = await needExecution(env, reference)
  const queued = await requestCopy(env, original, await needStorage(env.catalog.db, to), { verify, trigger: 'manual' })
  const followed = (await daemonAlive(env)) ? await followExecution(context, env, queued.id, original.compressed_size_bytes) : queued
  const row = followed.status === 'pending' ? await runHere(context, env, followed.id, original.compressed_size_bytes) : followed
  context.out.result(row, () => executionText(row))
}

/** `backupd copy EXECUTION --to STORAGE`. Exit 1 when it failed, 3 when there is no such backup or storage, 5 when the backup or the copy is damaged. */
export const define = (command: Command, run: Run): void => {
  command
    .argument('<execution>', 'number, backup_id or latest:SCHEDULE')
    .requiredOption('--to <storage>', 'name of the storage that gets the copy')
    .option('--no-verify', 'do not read the copy back')
    .addHelpText('after', '\nThe stored bytes are copied as they are, no key is needed, and every digest is compared. The copy is an execution of its own: verify, restore\nand show take its number. A daemon that runs does the work and this command follows it; without one, the work is done here.')
    .action((reference: string, options: { to: string; verify: boolean }) => run((context) => copy(context, reference, options)))
}
