import type { Db } from '../catalog/connect.js'
import { readFigures, type Figures } from '../catalog/figures.js'
import { metricsText } from '../http/metrics.js'
import type { HealthEntry, Monitor } from '../http/monitor.js'
import type { Pulse } from './pulse.js'
import type { Tally } from './tally.js'
import type { Work } from './work.js'

/** A catalog that is away this long is more than a restart. Milliseconds. */
const OUTAGE = 60_000

export interface DaemonMonitor extends Monitor {
  /** Reads the figures anew. */
  refresh(db: Db): Promise<void>
  /** Once there is work to see. */
  watch(work: Work): void
  /** Entries of further checks, in place of those of the last time. */
  setChecks(entries: readonly HealthEntry[]): void
  readonly figures: Figures | undefined
}

const seconds = (duration: number): string => `${Math.round(duration / 1000)} s`

const catalogEntry = (pulse: Pulse, now: number): HealthEntry => {
  const entry = { name: 'catalog', checkedAt: pulse.lastAnswer ?? pulse.since }
  if (pulse.catalog === 'reachable') return { ...entry, status: 'healthy', message: 'the catalog answers' }
  const away = now - (pulse.catalog === 'waiting' ? pulse.since : (pulse.lastAnswer ?? pulse.since))
  const status = away > OUTAGE ? 'critical' : 'warning'
  // Which error it is names tables, and this is read by everybody.
  const message = pulse.catalog === 'failing' ? `the catalog has answered with nothing but errors for ${seconds(away)}; the log says which` : `the catalog has not answered for ${seconds(away)}`
  return { ...entry, checkedAt: now, status, message }
}

const schedulerEntry = (pulse: Pulse, live: boolean, now: number): HealthEntry => ({
  name: 'scheduler', checkedAt: now,
  status: live ? (pulse.draining ? 'warning' : 'healthy') : 'critical',
  message: !live ? `the scheduler has stood still for ${seconds(now - pulse.lastTick)}` : pulse.draining ? 'the daemon is being stopped and takes no more work' : 'the scheduler keeps time',
})

const named = (names: readonly string[]): string => (names.length > 5 ? `${names.slice(0, 5).join(', ')} and ${names.length - 5} more` : names.join(', '))

const figureEntries = ({ schedules, queue }: Figures, checkedAt: number): HealthEntry[] => {
  const active = schedules.filter((row) => row.active)
  const failed = active.filter((row) => row.last_status === 'failed' || row.last_status === 'corrupted').map((row) => row.name)
  const stuck = active.filter((row) => row.next_run === null).map((row) => row.name)
  return [
    { name: 'last_runs', checkedAt, status: failed.length > 0 ? 'warning' : 'healthy', message: failed.length > 0 ? `the last run failed of ${named(failed)}` : 'no schedule\'s last run failed' },
    { name: 'next_runs', checkedAt, status: stuck.length > 0 ? 'warning' : 'healthy', message: stuck.length > 0 ? `no next run is known of ${named(stuck)}` : 'every active schedule has a next run' },
    { name: 'leases', checkedAt, status: queue.expired > 0 ? 'warning' : 'healthy', message: queue.expired > 0 ? `${queue.expired} runs have lost their daemon` : 'every run has its daemon' },
  ]
}

export interface MonitorOptions {
  pulse: Pulse
  tally: Tally
  concurrency: number
  /** Milliseconds without a tick after which the daemon is not alive. */
  patience: number
}

/** What the daemon shows of itself. */
export const createMonitor = ({ pulse, tally, concurrency, patience }: MonitorOptions): DaemonMonitor => {
  let figures: Figures | undefined
  let readAt = 0
  let work: Work | undefined
  let checks: readonly HealthEntry[] = []

  const live = (): boolean => performance.now() - pulse.lastTick < patience
  const wall = (moment: number | undefined): number | null => (moment === undefined ? null : (performance.timeOrigin + moment) / 1000)
  const nameOf = (id: string): string => figures?.schedules.find((row) => String(row.id) === id)?.name ?? id

  return {
    live,
    ready: () => live() && !pulse.draining && pulse.catalog === 'reachable' && performance.now() - (pulse.lastAnswer ?? -Infinity) < patience,
    health: () => {
      const now = performance.now()
      return [catalogEntry(pulse, now), schedulerEntry(pulse, live(), now), ...(figures === undefined ? [] : figureEntries(figures, readAt)), ...checks]
    },
    metrics: () => {
      tally.sample(work?.running.values() ?? [])
      return metricsText({
        started: performance.timeOrigin / 1000,
        catalogUp: pulse.catalog === 'reachable',
        lastContact: wall(pulse.lastAnswer),
        lastTick: wall(pulse.lastTick),
        draining: pulse.draining,
        running: work?.running.size ?? 0,
        concurrency,
        bytes: tally.bytes,
        failures: tally.failures.map(({ schedule: id, code, count }) => ({ schedule: nameOf(id), id, code, count })),
      }, figures)
    },
    refresh: async (db) => {
      tally.sample(work?.running.values() ?? [])
      figures = await readFigures(db)
      readAt = performance.now()
    },
    watch: (found) => {
      work = found
    },
    setChecks: (entries) => {
      checks = entries
    },
    get figures() {
      return figures
    },
  }
}
