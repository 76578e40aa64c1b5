import { Option, type Command } from 'commander'
import { listExecutions, type Execution } from '../catalog/executions.js'
import type { Db } from '../catalog/connect.js'
import { namedByFound } from '../catalog/found.js'
import { jsonObject } from '../catalog/json.js'
import { findSchedule, listSchedules } from '../catalog/schedules.js'
import { executionStatuses, type ExecutionStatus } from '../catalog/statuses.js'
import { listStorages } from '../catalog/storages.js'
import { scheduleNamed } from '../operation/settings/schedules.js'
import { someOf, wholeNumber } from './arguments.js'
import type { Context, Run } from './context.js'
import { bytes, table, type Row } from './output.js'

interface ListOptions {
  schedule?: string
  status?: ExecutionStatus[]
  limit: number
}

const line = (row: Execution, schedules: Map<number, string>, storages: Map<number, string>): Row => ({
  id: row.id,
  backup_id: row.backup_id,
  schedule: row.schedule_id === null ? jsonObject(row.backup_config)['schedule'] : schedules.get(row.schedule_id),
  storage: storages.get(row.storage_backend_id),
  status: row.expiring_at !== null ? `${row.status}, being deleted` : row.pinned ? `${row.status}, pinned` : row.status,
  verified: row.verification_status,
  started: row.started_at,
  seconds: row.duration_seconds,
  size: row.compressed_size_bytes === 0 ? null : bytes(row.compressed_size_bytes),
  error: row.error_message?.split('\n')[0]?.slice(0, 100),
})

// A rebuild of the catalog finds backups of schedules that are not there.
const scheduleId = async (db: Db, name: string): Promise<number | undefined> =>
  (await namedByFound(db, name)) ? (await findSchedule(db, name))?.id : (await scheduleNamed(db, name)).id

const byId = (rows: readonly { id: number; name: string }[]): Map<number, string> => new Map(rows.map(({ id, name }) => [id, name]))

const list = async (context: Context, { schedule, status, limit }: ListOptions): Promise<void> => {
  const { db } = await context.catalog()
  const rows = await listExecutions(db, {
    limit,
    ...(schedule === undefined ? {} : { named: { name: schedule, id: await scheduleId(db, schedule) } }),
    ...(status === undefined ? {} : { status }),
  })
  const schedules = byId(await listSchedules(db))
  const storages = byId(await listStorages(db))
  const columns = ['id', 'backup_id', 'schedule', 'storage', 'status', 'verified', 'started', 'seconds', 'size', 'error']
  context.out.result(rows, () => table(columns, rows.map((row) => line(row, schedules, storages)), 'There are no executions.'))
}

/** `backupd list`: executions, newest first. */
export const define = (command: Command, run: Run): void => {
  command
    .option('--schedule <name>', 'only those of this schedule')
    .addOption(new Option('--status <status>', `only those in this status, or these: ${executionStatuses.join(', ')}`).argParser(someOf(executionStatuses)))
    .option('--limit <n>', 'how many at most', wholeNumber(1, 1_000_000), 50)
    .action((options: ListOptions) => run((context) => list(context, options)))
}
