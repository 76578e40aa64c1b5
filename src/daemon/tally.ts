import type { Execution } from '../catalog/executions.js'
import { jsonObject } from '../catalog/json.js'
import { BackupdError } from '../errors.js'
import type { Tracker } from '../operation/progress.js'
import type { ProcessFigures } from '../http/metrics.js'
import type { RunningWork } from './work.js'

/** What this process has counted since it started. */
export interface Tally {
  /** Takes in how far the running work is. */
  sample(running: Iterable<RunningWork>): void
  ended(work: RunningWork, error: unknown): void
  /** A run of another process was found lost. */
  lost(execution: Execution): void
  readonly bytes: Readonly<ProcessFigures['bytes']>
  /** By the schedule's id; empty without one. */
  readonly failures: readonly { schedule: string; code: string; count: number }[]
}

const codeOf = (error: unknown): string => (error instanceof BackupdError ? error.code : 'internal')

export const createTally = (): Tally => {
  const bytes = { read: 0, stored: 0, verified: 0 }
  const failures = new Map<string, { schedule: string; code: string; count: number }>()
  const counted = new WeakMap<Tracker, { plain: number; stored: number; checked: number }>()

  const take = (tracker: Tracker): void => {
    const { plain_bytes: plain, stored_bytes: stored, checked_bytes: checked } = tracker.progress
    const before = counted.get(tracker) ?? { plain: 0, stored: 0, checked: 0 }
    bytes.read += plain - before.plain
    bytes.stored += stored - before.stored
    bytes.verified += checked - before.checked
    counted.set(tracker, { plain, stored, checked })
  }
  const fail = (execution: Execution, code: string): void => {
    const schedule = execution.schedule_id === null ? '' : String(execution.schedule_id)
    const key = `${schedule} ${code}`
    failures.set(key, { schedule, code, count: (failures.get(key)?.count ?? 0) + 1 })
  }
  return {
    bytes,
    get failures() {
      return [...failures.values()]
    },
    sample: (running) => {
      for (const { tracker } of running) if (tracker !== undefined) take(tracker)
    },
    ended: ({ execution, tracker }, error) => {
      if (tracker !== undefined) take(tracker)
      if (error !== undefined) fail(execution, codeOf(error))
    },
    lost: (execution) => fail(execution, String(jsonObject(execution.error_details)['code'] ?? 'lease.expired')),
  }
}
