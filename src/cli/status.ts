import type { Command } from 'commander'
import { databaseTime } from '../catalog/attention.js'
import { listExecutions, type Execution } from '../catalog/executions.js'
import { jsonObject } from '../catalog/json.js'
import { listRecoveries, type Recovery } from '../catalog/recoveries.js'
import { listSchedules, type Schedule } from '../catalog/schedules.js'
import { liveExecutionStatuses } from '../catalog/statuses.js'
import { liveWorkers, type Worker } from '../catalog/workers.js'
import type { Context, Run } from './context.js'
import { bytes, table, type Row } from './output.js'

const MOST = 500

interface State {
  now: Date
  daemons: Worker[]
  live: Execution[]
  recoveries: Recovery[]
  schedules: Schedule[]
  lastErrors: Map<number, string>
}

const read = async ({ catalog: open }: Context): Promise<{ where: string; state: State }> => {
  const catalog = await open()
  const { db } = catalog
  const schedules = await listSchedules(db)
  const lastErrors = new Map<number, string>()
  for (const { id, last_status } of schedules) {
    if (last_status !== 'failed' && last_status !== 'corrupted') continue
    const [last] = await listExecutions(db, { schedule: id, status: ['failed', 'corrupted'], copies: false, limit: 1 })
    if (last?.error_message != null) lastErrors.set(id, last.error_message)
  }
  return {
    where: catalog.description,
    state: {
      now: await databaseTime(db), schedules, lastErrors,
      daemons: await liveWorkers(db, 'daemon'),
      live: await listExecutions(db, { status: liveExecutionStatuses, limit: MOST }),
      recoveries: await listRecoveries(db, { status: ['pending', 'preparing', 'downloading', 'extracting', 'restoring', 'validating'], limit: MOST }),
    },
  }
}

const ago = (seconds: number): string =>
  seconds < 120 ? `${Math.round(seconds)} s` : seconds < 7_200 ? `${Math.round(seconds / 60)} min` : seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} days`

const sinceText = (now: Date, then: Date | null): string => (then === null ? 'never' : `${ago(Math.max(0, (now.getTime() - then.getTime()) / 1000))} ago`)
const untilText = (now: Date, then: Date): string => (then <= now ? 'now' : `in ${ago((then.getTime() - now.getTime()) / 1000)}`)

const workText = (now: Date, { status, started_at: began, not_before: begin, progress }: Execution): string => {
  if (status === 'pending') return begin !== null && begin > now ? `waits, begins ${untilText(now, begin)}` : 'waits for a daemon'
  const known = jsonObject(progress)
  const stage = typeof known['stage'] === 'string' ? known['stage'] : 'prepare'
  const read = Number(known['plain_bytes'] ?? 0)
  const elapsed = Math.max(1, (now.getTime() - began.getTime()) / 1000)
  return `${stage}, ${bytes(read)} read, ${bytes(Number(known['stored_bytes'] ?? 0))} stored, ${bytes(Math.round(read / elapsed))}/s, for ${ago(elapsed)}`
}

const runningRows = ({ now, live, recoveries, schedules }: State): Row[] => [
  ...live.map((row) => ({
    execution: row.id,
    schedule: schedules.find(({ id }) => id === row.schedule_id)?.name ?? '-',
    status: row.status,
    attempt: row.attempt,
    work: row.cancel_requested_at === null ? workText(now, row) : `${workText(now, row)}, being cancelled`,
    worker: row.status === 'pending' ? '-' : row.worker_id,
  })),
  ...recoveries.map((row) => ({ execution: row.recovery_id, schedule: '-', status: row.status, attempt: '-', work: `restore to ${row.target_system}`, worker: row.worker_id ?? '-' })),
]

const resultText = ({ now, lastErrors }: State, { id, last_status, last_run_at }: Schedule): string => {
  if (last_status === null) return 'not run yet'
  const error = lastErrors.get(id)
  return `${last_status} ${sinceText(now, last_run_at)}${error === undefined ? '' : `: ${error.length > 60 ? `${error.slice(0, 59)}\u2026` : error}`}`
}

const scheduleRows = (state: State): Row[] =>
  state.schedules.map((row) => ({
    schedule: row.name,
    next_run: !row.is_active ? 'switched off' : row.next_run_at === null ? 'not known yet' : untilText(state.now, row.next_run_at),
    last_result: resultText(state, row),
    runs: row.total_runs,
    failed: row.failed_runs,
  }))

const statusText = (where: string, state: State): string => {
  const daemons = state.daemons.map((row) => {
    const { concurrency, http } = jsonObject(row.details)
    const running = state.live.filter(({ worker_id, status }) => worker_id === row.id && status !== 'pending').length
    return { daemon: row.host, pid: row.pid, version: row.version, state: row.state, runs: `${running} of ${String(concurrency ?? '?')}`, http: http ?? '-', since: sinceText(state.now, row.started_at) }
  })
  return [
    `catalog ${where}`,
    table(['daemon', 'pid', 'version', 'state', 'runs', 'http', 'since'], daemons, 'no daemon is running: schedules are not kept'),
    table(['execution', 'schedule', 'status', 'attempt', 'work', 'worker'], runningRows(state), 'nothing is running'),
    table(['schedule', 'next_run', 'last_result', 'runs', 'failed'], scheduleRows(state), 'there are no schedules'),
  ].join('\n\n')
}

/** What `--json` says; the names of the columns are those of the catalog. */
const document = (where: string, state: State): Record<string, unknown> => ({
  catalog: where,
  time: state.now,
  daemons: state.daemons.map(({ id, host, pid, version, state: what, started_at, heartbeat_at, details }) => ({ id, host, pid, version, state: what, started_at, heartbeat_at, details })),
  executions: state.live.map(({ id, backup_id, schedule_id, status, attempt, triggered_by, started_at, not_before, worker_id, progress, cancel_requested_at }) =>
    ({ id, backup_id, schedule_id, status, attempt, triggered_by, started_at, not_before, worker_id, progress, cancel_requested_at })),
  recoveries: state.recoveries.map(({ id, recovery_id, status, target_system, worker_id, progress }) => ({ id, recovery_id, status, target_system, worker_id, progress })),
  schedules: state.schedules.map(({ id, name, is_active, next_run_at, last_run_at, last_status, total_runs, successful_runs, failed_runs }) =>
    ({ id, name, is_active, next_run_at, last_run_at, last_status, last_error: state.lastErrors.get(id) ?? null, total_runs, successful_runs, failed_runs })),
})

/** `backupd status`: daemons, running work, next runs and last results on one screen. */
export const define = (command: Command, run: Run): void => {
  command.action(() =>
    run(async (context) => {
      const { where, state } = await read(context)
      context.out.result(document(where, state), () => statusText(where, state))
    }))
}
