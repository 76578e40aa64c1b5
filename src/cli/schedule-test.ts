import type { Command } from 'commander'
import { storageById } from '../catalog/storages.js'
import { BackupdError, messageOf } from '../errors.js'
import { inspectSource } from '../health/inspect-source.js'
import type { Environment } from '../operation/environment.js'
import { planBackup } from '../operation/plan.js'
import { scheduleNamed } from '../operation/settings/schedules.js'
import { testStorage } from '../operation/settings/storages.js'
import { describeConnection } from '../postgres/connection.js'
import { findTools } from '../postgres/tools.js'
import type { Context, Run } from './context.js'
import { environmentOf } from './environment.js'
import { facts } from './output.js'

interface StorageFound {
  name: string
  healthy: boolean
  message: string
}

const tryStorage = async (env: Environment, id: number): Promise<StorageFound> => {
  const row = await storageById(env.catalog.db, id)
  if (row === undefined) throw new BackupdError('storage.unknown', `the storage ${id} of the schedule is gone`, { kind: 'notFound' })
  if (!row.is_active) return { name: row.name, healthy: false, message: 'it is disabled' }
  try {
    const { healthy, message } = await testStorage(env, row)
    return { name: row.name, healthy, message }
  } catch (error) {
    return { name: row.name, healthy: false, message: messageOf(error) }
  }
}

const testSchedule = async (context: Context, name: string): Promise<void> => {
  const env = await environmentOf(context)
  const schedule = await scheduleNamed(env.catalog.db, name)
  const plan = await planBackup(env, schedule)
  const source = await inspectSource(plan.connection, await findTools({ pgBin: context.config.pgBin }), context.signal)
  const storages: StorageFound[] = []
  for (const id of [schedule.storage_backend_id, schedule.copy_to]) if (id !== null) storages.push(await tryStorage(env, id))
  const problems = [
    ...source.problems.map((problem) => `source ${plan.sourceName}: ${problem}`),
    ...storages.filter(({ healthy }) => !healthy).map((storage) => `storage ${storage.name}: ${storage.message}`),
  ]
  const where = describeConnection(plan.connection)
  const notes = [...source.warnings, ...plan.notes]
  const encrypted = plan.recipients.length === 0 ? 'no' : `to ${plan.recipients.length} ${plan.recipients.length === 1 ? 'key' : 'keys'}`
  const summary = {
    schedule: name, source: plan.sourceName, url: where, database: source.database, pg_dump: source.pg_dump?.version, encrypted,
    storage: storages[0]?.name, copy_to: storages[1]?.name, state: schedule.is_active ? undefined : 'disabled',
  }
  context.out.result({ name, source: { name: plan.sourceName, url: where, ...source }, storages, recipients: plan.recipients, problems, warnings: notes },
    () => [facts(summary), ...problems.map((text) => `problem: ${text}`), ...notes.map((text) => `warning: ${text}`)].join('\n'))
  if (problems.length > 0) throw new BackupdError('schedule.unfit', `a run of schedule ${name} would not succeed as it is: ${problems.join('; ')}`, { kind: 'configuration' })
}

/** `backupd schedule test NAME`. Exit 4 when a run would not find what it needs. */
export const defineTest = (command: Command, run: Run): void => {
  command.command('test').description('look whether a run would find what it needs: source, storages, keys; nothing is backed up').argument('<name>', 'name of the schedule')
    .action((name: string) => run((context) => testSchedule(context, name)))
}
