import { version } from '../version.js'
import type { HealthEntry, HealthStatus } from './monitor.js'

const order = ['healthy', 'warning', 'critical'] as const satisfies readonly HealthStatus[]

/** The worst of all entries. */
export const overall = (entries: readonly HealthEntry[]): HealthStatus =>
  order[Math.max(0, ...entries.map(({ status }) => order.indexOf(status)))] ?? 'healthy'

/** The answer of `/health`. Ages are seconds. */
export const healthDocument = (entries: readonly HealthEntry[], now: number): { status: HealthStatus; version: string; checks: Record<string, unknown>[] } => ({
  status: overall(entries),
  version,
  checks: entries.map(({ name, status, message, checkedAt }) => ({ name, status, message, age_seconds: Math.max(0, Math.round((now - checkedAt) / 1000)) })),
})
