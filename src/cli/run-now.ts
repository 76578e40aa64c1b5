import type { Command } from 'commander'
import { waitingCopies } from '../catalog/copies.js'
import { executionById, listExecutions, type Execution } from '../catalog/executions.js'
import type { Schedule } from '../catalog/schedules.js'
import { storageById } from '../catalog/storages.js'
import { BackupdError, messageOf } from '../errors.js'
import type { Environment } from '../operation/environment.js'
import { needSchedule, requestBackup } from '../operation/request.js'
import { sweepPartial } from '../operation/sweep.js'
import type { Context, Run } from './context.js'
import { environmentOf } from './environment.js'
import { executionText } from './execution.js'
import { daemonAlive, followExecution } from './follow.js'
import { runHere } from './run-here.js'

/** How much the last good run of the schedule read, bytes: what the estimate goes by. */
export const lastSize = async (env: Environment, scheduleId: number): Promise<number | undefined> =>
  (await listExecutions(env.catalog.db, { schedule: scheduleId, status: ['completed', 'verified'], copies: false, limit: 1 }))[0]?.size_bytes

const runDetached = async (context: Context, env: Environment, schedule: Schedule): Promise<void> => {
  if (!(await daemonAlive(env))) {
    throw new BackupdError('daemon.none', 'no daemon is running that could do it', { hint: 'Start it with "backupd daemon", or leave out --detach to back up in this process.' })
  }
  const row = await requestBackup(env, schedule, 'manual')
  context.out.result(row, () => `execution ${row.id} is queued; see "backupd show ${row.id}"`)
}

/** Makes the copies that the schedule wants of its new backup, where no daemon does. One that fails is told and recorded, and the backup is good all the same. */
const copyHere = async (context: Context, env: Environment, backup: Execution): Promise<void> => {
  for (const copy of await waitingCopies(env.catalog.db, backup.id)) {
    if (await daemonAlive(env)) {
      context.out.line(`the copy is queued as execution ${copy.id}`)
      continue
    }
    try {
      const row = await runHere(context, env, copy.id, backup.compressed_size_bytes)
      context.out.line(`copied to ${row.storage_location ?? 'the other storage'} as execution ${row.id}`)
    } catch (error) {
      context.out.line(`warning: the backup is stored, but execution ${copy.id} could not copy it: ${messageOf(error)}`)
    }
  }
}

// A daemon sweeps daily; where there is none, this is the only time when what a killed process left in a folder of ours can go.
const sweepHere = async (context: Context, env: Environment, storageId: number): Promise<void> => {
  try {
    const storage = await storageById(env.catalog.db, storageId)
    if (storage?.backend_type !== 'local' || (await daemonAlive(env))) return
    const { length } = await sweepPartial(env, storage)
    if (length > 0) context.out.line(`removed ${length} partial ${length === 1 ? 'file' : 'files'} of processes that were killed`)
  } catch (error) {
    env.log.warn({ error: messageOf(error) }, 'the partial files of killed processes could not be looked for')
  }
}

const runNow = async (context: Context, name: string, detach: boolean): Promise<void> => {
  const env = await environmentOf(context)
  const schedule = await needSchedule(env, name)
  if (detach) return runDetached(context, env, schedule)
  const expected = await lastSize(env, schedule.id)
  const daemon = await daemonAlive(env)
  const queued = await requestBackup(env, schedule, 'manual')
  // A daemon may die before it begins; then the work is done here after all.
  const followed = daemon ? await followExecution(context, env, queued.id, expected) : queued
  const row = followed.status === 'pending' ? await runHere(context, env, followed.id, expected) : followed
  await copyHere(context, env, row)
  await sweepHere(context, env, row.storage_backend_id)
  const finished = (await executionById(env.catalog.db, row.id)) ?? row
  context.out.result(finished, () => executionText(finished))
}

/** `backupd run-now SCHEDULE`: one backup, now. Exit 1 when it failed, 5 when what was stored is damaged, 4 when something is not set up. */
export const define = (command: Command, run: Run): void => {
  command
    .argument('<schedule>', 'name of the schedule')
    .option('--detach', 'leave it to the daemon and return at once')
    .addHelpText('after', '\nA daemon that runs does the work and this command follows it; without one, the work is done here. Ctrl-C cancels the backup.')
    .action((name: string, { detach }: { detach?: boolean }) => run((context) => runNow(context, name, detach === true)))
}
