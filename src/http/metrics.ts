import type { Figures } from '../catalog/figures.js'
import { version } from '../version.js'
import { exposition, type Metric, type Sample } from './exposition.js'

/** What this process has counted and sees right now. Times are seconds since 1970. */
export interface ProcessFigures {
  /** Seconds since 1970. */
  started: number
  catalogUp: boolean
  lastContact: number | null
  lastTick: number | null
  draining: boolean
  running: number
  concurrency: number
  /** Bytes that passed: read from the source, written to the storage, read back to verify. */
  bytes: { read: number; stored: number; verified: number }
  failures: readonly { schedule: string; /** Of the schedule; empty without one. */ id: string; code: string; count: number }[]
}

const metric = (type: Metric['type'], name: string, help: string, samples: readonly Sample[] | number | null): Metric =>
  ({ name: `backupd_${name}`, type, help, samples: Array.isArray(samples) ? samples : [{ value: samples as number | null }] })

const truth = (value: boolean): number => (value ? 1 : 0)

const ofProcess = (own: ProcessFigures): Metric[] => [
  { name: 'process_start_time_seconds', type: 'gauge', help: 'When the process was started, seconds since 1970.', samples: [{ value: own.started }] },
  { name: 'process_cpu_seconds_total', type: 'counter', help: 'CPU time used by the process, seconds.', samples: [{ value: (process.cpuUsage().user + process.cpuUsage().system) / 1e6 }] },
  { name: 'process_resident_memory_bytes', type: 'gauge', help: 'Resident memory of the process.', samples: [{ value: process.memoryUsage.rss() }] },
  metric('gauge', 'build_info', 'The version that runs.', [{ labels: { version }, value: 1 }]),
  metric('gauge', 'catalog_up', 'Whether the catalog could be reached at the last look.', truth(own.catalogUp)),
  metric('gauge', 'catalog_last_contact_timestamp_seconds', 'When the catalog last answered.', own.lastContact),
  metric('gauge', 'scheduler_last_tick_timestamp_seconds', 'When the scheduler last looked, whether or not the catalog answered.', own.lastTick),
  metric('gauge', 'draining', 'Whether the daemon takes no more work because it is being stopped.', truth(own.draining)),
  metric('gauge', 'running', 'Runs in this process.', own.running),
  metric('gauge', 'concurrency', 'Runs that this process does at a time.', own.concurrency),
  metric('counter', 'bytes_total', 'Bytes that this process moved: read from sources, stored, and read back to verify.',
    Object.entries(own.bytes).map(([stage, value]) => ({ labels: { stage }, value }))),
  metric('counter', 'failures_total', 'Runs that failed in this process, or that it found lost, by the code of the error.',
    own.failures.map(({ schedule, id, code, count }) => ({ labels: { schedule, id, code }, value: count }))),
]

const ofCatalog = ({ schedules, storages, queue }: Figures): Metric[] => {
  // Names need not be unique in the shared tables, and two series must never be the same.
  const bySchedule = (value: (row: Figures['schedules'][number]) => number | null): Sample[] =>
    schedules.map((row) => ({ labels: { schedule: row.name, id: row.id }, value: value(row) }))
  const byStorage = (value: (row: Figures['storages'][number]) => number | null): Sample[] =>
    storages.map((row) => ({ labels: { storage: row.name, id: row.id, type: row.type }, value: value(row) }))
  return [
    metric('gauge', 'queue_length', 'Executions that wait or run, of all daemons.', (['pending', 'running', 'verifying'] as const).map((status) => ({ labels: { status }, value: queue[status] }))),
    metric('gauge', 'leases_expired', 'Executions whose worker is gone and that no daemon has ended yet.', queue.expired),
    metric('gauge', 'daemons', 'Daemons that are alive on this catalog.', queue.workers),
    metric('gauge', 'schedule_active', 'Whether the schedule is switched on.', bySchedule(({ active }) => truth(active))),
    metric('gauge', 'schedule_last_success_timestamp_seconds', 'When the last good backup was complete.', bySchedule((row) => row.last_success)),
    metric('gauge', 'schedule_last_attempt_timestamp_seconds', 'When the last run began.', bySchedule((row) => row.last_attempt)),
    metric('gauge', 'schedule_last_run_failed', 'Whether the last run did not end well.', bySchedule((row) => (row.last_status === null ? null : truth(['failed', 'corrupted'].includes(row.last_status))))),
    metric('gauge', 'schedule_next_run_timestamp_seconds', 'When the schedule runs next.', bySchedule((row) => row.next_run)),
    metric('gauge', 'schedule_last_duration_seconds', 'How long the last good backup took.', bySchedule((row) => row.duration)),
    metric('gauge', 'schedule_last_size_bytes', 'What the last good backup read.', bySchedule((row) => row.size)),
    metric('gauge', 'schedule_last_stored_bytes', 'What the last good backup stored.', bySchedule((row) => row.stored)),
    metric('counter', 'schedule_runs_total', 'Runs that have ended, of all daemons.', schedules.flatMap((row) => [
      { labels: { schedule: row.name, id: row.id, result: 'success' }, value: row.successful },
      { labels: { schedule: row.name, id: row.id, result: 'failure' }, value: row.failed },
      { labels: { schedule: row.name, id: row.id, result: 'other' }, value: Math.max(0, row.total - row.successful - row.failed) },
    ])),
    metric('gauge', 'storage_active', 'Whether the storage is switched on.', byStorage(({ active }) => truth(active))),
    metric('gauge', 'storage_healthy', 'Whether the last check of the storage went well.', byStorage(({ healthy }) => truth(healthy))),
    metric('gauge', 'storage_last_check_timestamp_seconds', 'When the storage was last checked.', byStorage((row) => row.last_check)),
    metric('gauge', 'storage_backups', 'Backups in the storage.', byStorage((row) => row.backups)),
    metric('gauge', 'storage_size_bytes', 'Bytes stored in the storage.', byStorage((row) => row.bytes)),
  ]
}

/** The text of `/metrics`; without `figures`, as long as the catalog was not read, only what the process knows. */
export const metricsText = (own: ProcessFigures, figures: Figures | undefined): string =>
  exposition([...ofProcess(own), ...(figures === undefined ? [] : ofCatalog(figures))])
