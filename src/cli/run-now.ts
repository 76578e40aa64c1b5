import type { Command } from 'commander'
import { listExecutions } from '../catalog/executions.js'
import { removeWorker, registerWorker } from '../catalog/workers.js'
import { hostname } from 'node:os'
import type { Environment } from '../operation/environment.js'
import { runExecution } from '../operation/execution.js'
import type { Tracker } from '../operation/progress.js'
import { needSchedule, requestBackup } from '../operation/request.js'
import { version } from '../version.js'
import type { Context, Run } from './context.js'
import { environmentOf } from './environment.js'
import { executionText } from './execution.js'
import { showProgress } from './progress.js'

/** How much the last good run of the schedule read, bytes: what the estimate goes by. */
export const lastSize = async (env: Environment, scheduleId: number): Promise<number | undefined> =>
  (await listExecutions(env.catalog.db, { schedule: scheduleId, status: ['completed', 'verified'], limit: 1 }))[0]?.size_bytes

const runHere = async (context: Context, env: Environment, name: string): Promise<void> => {
  const schedule = await needSchedule(env, name)
  const expected = await lastSize(env, schedule.id)
  await registerWorker(env.catalog.db, { id: env.workerId, kind: 'cli', host: hostname(), pid: process.pid, version, state: 'running' })
  try {
    const { id } = await requestBackup(env, schedule, 'manual')
    let tracker: Tracker | undefined
    const stop = showProgress(context.out, () => tracker?.progress, expected)
    const row = await runExecution(env, id, { onTracker: (started) => (tracker = started) }).finally(stop)
    context.out.result(row, () => executionText(row))
  } finally {
    await removeWorker(env.catalog.db, env.workerId).catch(() => undefined)
  }
}

/** `backupd run-now SCHEDULE`: one backup, now. Exit 1 when it failed, 5 when what was stored is damaged, 4 when something is not set up. */
export const define = (command: Command, run: Run): void => {
  command.argument('<schedule>', 'name of the schedule').action((name: string) => run(async (context) => runHere(context, await environmentOf(context), name)))
}
