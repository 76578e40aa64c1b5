export type HealthStatus = 'healthy' | 'warning' | 'critical'

/** One thing that was looked at. */
export interface HealthEntry {
  name: string
  status: HealthStatus
  /** One sentence; neither secrets nor names of tables. */
  message: string
  /** When it was looked at, by `performance.now()`. */
  checkedAt: number
}

/** What the server tells about the daemon. Every answer is at hand: nothing is computed for a request, so that requests cannot burden it. */
export interface Monitor {
  /** Whether the process does its work, also while it waits for the catalog. */
  live(): boolean
  /** Whether it can take and run work now. */
  ready(): boolean
  health(): readonly HealthEntry[]
  metrics(): string
}
