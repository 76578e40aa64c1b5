import { writeAudit } from '../audit/audit.js'
import { databaseTime } from '../catalog/attention.js'
import type { Db } from '../catalog/connect.js'
import { cancelSwitchedOff, enqueue, listExecutions } from '../catalog/executions.js'
import { notifyWork } from '../catalog/notifications.js'
import { isManaged, lockDueSchedules, nextRunHolds, setNextRun, setNoNextRun, type Schedule } from '../catalog/schedules.js'
import { jsonTexts } from '../catalog/json.js'
import { liveExecutionStatuses } from '../catalog/statuses.js'
import { storageById } from '../catalog/storages.js'
import { addWarning } from '../catalog/warnings.js'
import { BackupdError, messageOf } from '../errors.js'
import { nextRun } from '../operation/settings/cron.js'
import type { Environment } from '../operation/environment.js'
import { newBackupId } from '../repository/keys.js'
import { decide, type Run } from './due.js'

/** Schedules are locked while they are looked at, and others wait for them. */
export const BATCH = 50

type Afterwards = () => Promise<void>

const resource = ({ id, name }: Schedule) => ({ type: 'backup_schedule', id, name })

const note = async (env: Environment, schedule: Schedule, event: string, status: 'warning' | 'failure', data: Record<string, unknown>): Promise<void> => {
  await writeAudit(env.catalog.db, {
    event_type: event, event_category: 'backup', action: 'execute', status, actor: env.actor, resource: resource(schedule), event_data: data,
  })
}

/** The schedule's settings give no time to run at: said once, and then nothing until they are changed. */
const refuse = async (env: Environment, tx: Db, schedule: Schedule, error: unknown): Promise<Afterwards> => {
  await setNoNextRun(tx, schedule.id)
  return async () => {
    env.log.error({ schedule: schedule.name, error: messageOf(error) }, 'the schedule cannot run')
    await note(env, schedule, 'schedule.invalid', 'failure', { code: error instanceof BackupdError ? error.code : 'internal', reason: messageOf(error) })
  }
}

/** A run came due while the last one of the schedule is still there: they become one. */
const coalesce = (env: Environment, schedule: Schedule, { scheduledFor }: Run): Afterwards => async () => {
  const [live] = await listExecutions(env.catalog.db, { schedule: schedule.id, status: liveExecutionStatuses, copies: false, limit: 1 })
  if (live === undefined || live.scheduled_for?.getTime() === scheduledFor.getTime()) return
  const text = 'a run came due while this one was'
  const facts = { schedule: schedule.name, execution: live.id, due: scheduledFor }
  // A run that takes days gets one warning, not one for every minute of them.
  if (jsonTexts(live.warnings).some((warning) => warning.startsWith(text))) return env.log.info(facts, 'the last run of the schedule is not over, no other is started')
  env.log.warn(facts, 'the last run of the schedule is not over, no other is started')
  await addWarning(env.catalog.db, live.id, `${text} ${live.status === 'pending' ? 'waiting' : 'running'}, at ${scheduledFor.toISOString()}, and was not started beside it`)
  await note(env, schedule, 'schedule.coalesced', 'warning', { execution_id: live.id, scheduled_for: scheduledFor })
}

const enqueueRun = (tx: Db, schedule: Schedule, run: Run, now: Date) =>
  enqueue(tx, {
    backup_id: newBackupId(now, schedule.name),
    schedule_id: schedule.id,
    storage_backend_id: schedule.storage_backend_id,
    source_id: schedule.source_id,
    backup_type: schedule.backup_type,
    triggered_by: 'schedule',
    scheduled_for: run.scheduledFor,
    not_before: run.notBefore,
    ...(run.warning === undefined ? {} : { warnings: [run.warning] }),
  })

/** The catalog is backed up only where that is wanted, and not to a storage that is switched off. */
const rests = async ({ config }: Environment, tx: Db, schedule: Schedule): Promise<boolean> =>
  isManaged(schedule) && (!config.catalogBackup || (await storageById(tx, schedule.storage_backend_id))?.is_active !== true)

/** Does what is due for one locked schedule; says what is to be told when the transaction has ended. */
const handle = async (env: Environment, tx: Db, schedule: Schedule, now: Date): Promise<{ fired?: number; afterwards?: Afterwards }> => {
  const { log, config } = env
  if (!schedule.is_active) {
    await setNextRun(tx, schedule.id, null)
    for (const { id } of await cancelSwitchedOff(tx, schedule.id)) log.info({ schedule: schedule.name, execution: id }, 'the schedule was switched off, its waiting run is cancelled')
    return {}
  }
  try {
    if (schedule.next_run_at === null || !nextRunHolds(schedule)) {
      const next = nextRun(schedule.cron_expression, schedule.timezone, now)
      await setNextRun(tx, schedule.id, next)
      log.info({ schedule: schedule.name, next }, 'the schedule was added or changed')
      return {}
    }
    const { next, run, skipped } = decide(schedule, schedule.next_run_at, now, config)
    await setNextRun(tx, schedule.id, next)
    if (await rests(env, tx, schedule)) return {}
    if (run === undefined) {
      return {
        afterwards: async () => {
          log.warn({ schedule: schedule.name, next }, skipped)
          await note(env, schedule, 'schedule.missed', 'warning', { reason: skipped })
        },
      }
    }
    const execution = await enqueueRun(tx, schedule, run, now)
    if (execution === undefined) return { afterwards: coalesce(env, schedule, run) }
    const facts = { schedule: schedule.name, execution: execution.id, due: run.scheduledFor, begins: run.notBefore, next }
    return {
      fired: execution.id,
      afterwards: async () => (run.warning === undefined ? log.info(facts, 'run queued') : log.warn(facts, run.warning)),
    }
  } catch (error) {
    if (!(error instanceof BackupdError) || !error.code.startsWith('schedule.')) throw error
    return { afterwards: await refuse(env, tx, schedule, error) }
  }
}

/** In a savepoint, so that what the catalog refuses of one row (a storage that is not there) keeps no other from running. */
const handleAlone = async (env: Environment, tx: Db, schedule: Schedule, now: Date): Promise<{ fired?: number; afterwards?: Afterwards }> => {
  try {
    return await tx.transaction((inner) => handle(env, inner, schedule, now))
  } catch (error) {
    if (!/^23/.test((error as { cause?: { code?: string } }).cause?.code ?? '')) throw error
    return { afterwards: await refuse(env, tx, schedule, error) }
  }
}

/** Queues the runs that are due and brings `next_run_at` up to date, for one batch of schedules. Gives how many it looked at and how many it queued. */
export const fireDue = async (env: Environment): Promise<{ seen: number; fired: number }> => {
  const { seen, results } = await env.catalog.db.transaction(async (tx) => {
    const schedules = await lockDueSchedules(tx, BATCH)
    const done = []
    if (schedules.length > 0) {
      const now = await databaseTime(tx)
      for (const schedule of schedules) done.push(await handleAlone(env, tx, schedule, now))
      const first = done.find(({ fired }) => fired !== undefined)?.fired
      // One word for all of them: whoever hears it looks at the whole queue.
      if (first !== undefined) await notifyWork(tx, { kind: 'execution', id: first })
    }
    return { seen: schedules.length, results: done }
  })
  for (const { afterwards } of results) await afterwards?.()
  return { seen, fired: results.filter(({ fired }) => fired !== undefined).length }
}
