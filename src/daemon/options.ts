import type { Execution } from '../catalog/executions.js'
import type { Environment } from '../operation/environment.js'
import { runClaimed } from '../operation/execution.js'
import type { Tracker } from '../operation/progress.js'

/** Carries a claimed execution to its end, like `runClaimed`. */
export type Perform = (env: Environment, execution: Execution, options: { onTracker?: (tracker: Tracker) => void }) => Promise<Execution>

/** What decides the daemon's rhythm. The tests and benchmarks change it; the command line does not. Milliseconds. */
export interface DaemonOptions {
  /** Seconds between two looks at the catalog; a divisor of 60. */
  tick: number
  /** Seconds between two readings of the figures; a divisor of 60, or whole minutes. */
  refresh: number
  /** Seconds between two looks at sources, storages and tools; whole minutes. */
  check: number
  /** Seconds between two looks whether the daily work is due; a divisor of 60, or whole minutes. */
  upkeep: number
  /** Seconds between two looks for alerts that are due again; a divisor of 60. */
  alerts: number
  /** Seconds between two looks for rows of audit_logs to archive; a divisor of 60, or whole minutes up to 30. */
  archive: number
  /** How long an expired lease must have been seen before its work is taken away: a living worker renews every 2 s. */
  reapGrace: number
  /** The same after the catalog was away, when everybody's lease is late and connections come back one after the other. */
  reapGraceAfterOutage: number
  /** Before attempt `attempt` + 1 begins, without the random part. */
  retryDelay: (attempt: number) => number
  /** For runs that were cut by a drain to clean up and be recorded. */
  cleanUp: number
  perform: Perform
}

export const defaultOptions: DaemonOptions = {
  tick: 5,
  refresh: 60,
  check: 300,
  upkeep: 600,
  alerts: 15,
  archive: 1800,
  reapGrace: 4_000,
  reapGraceAfterOutage: 30_000,
  retryDelay: (attempt) => Math.min(30_000 * 4 ** (attempt - 1), 3_600_000),
  cleanUp: 45_000,
  perform: runClaimed,
}
