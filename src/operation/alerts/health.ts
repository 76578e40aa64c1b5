import { raiseAlert, resolveAlert, type Alert } from '../../catalog/alerts.js'
import type { Db } from '../../catalog/connect.js'
import { resultName, type NewCheck, type RecordedCheck } from '../../catalog/health.js'
import type { Environment } from '../environment.js'

/** More than these at a time are one trouble, and an alert for each would be another. */
const MOST = 50

// Of these each single case is told of where it happens: runs that fail, and daemons that are asked to stop.
const silent: readonly string[] = ['failures', 'daemon']

type Result = Pick<NewCheck, 'check' | 'target' | 'status' | 'findings' | 'metrics'>

const about = ({ target, findings }: Result): Pick<Alert, 'schedule' | 'storage'> => {
  const subject = findings[0]?.subject ?? ''
  if (target === null || target.id === null) return {}
  if (target.type === 'storage') return { storage: { id: target.id, name: subject.replace(/^(disk of )?storage /, '') } }
  if (target.type === 'schedule') return { schedule: { id: target.id, name: subject.replace(/^(schedule|size of the newest backup of) /, '') } }
  return {}
}

const keyOf = (result: Result): string => {
  const { check, target } = result
  if (check === 'storages' && target?.type === 'storage') return `storage:${target.id ?? 0}:unhealthy`
  if (check === 'schedules' && target?.type === 'schedule') return `schedule:${target.id ?? 0}:overdue`
  return `health:${resultName(result)}`
}

/** Whether there is something to be told of. A schedule whose last run failed is told of by that run; being overdue is told of here. */
const isBad = ({ check, status, metrics }: Result): boolean => status !== 'healthy' && (check !== 'schedules' || metrics['overdue'] === true || status !== 'warning')

const textOf = ({ findings }: Result): string => {
  const bad = findings.filter(({ level }) => level !== 'healthy')
  return bad.map(({ subject, message, advice }) => `${subject}: ${message}${advice === undefined ? '' : `\n${advice}`}`).join('\n')
}

const titleOf = (result: Result): string => {
  const subject = result.findings.find(({ level }) => level !== 'healthy')?.subject ?? result.check
  if (result.check === 'schedules') return `${subject} is overdue`
  return `${subject}: ${result.status === 'error' ? 'could not be checked' : result.status}`
}

/**
 * Queues alerts for what a round found bad, and for what is well again since the round before; in the transaction that records the round. What stays bad
 * is told of again after some hours, which the queue of alerts sees to.
 */
export const tellOfHealth = async (env: Environment, tx: Db, now: readonly NewCheck[], before: readonly RecordedCheck[]): Promise<void> => {
  const loud = ({ check }: Result): boolean => !silent.includes(check)
  const bad = now.filter(loud).filter(isBad)
  const stillBad = new Set(bad.map(keyOf))
  for (const result of bad.slice(0, MOST)) {
    const key = keyOf(result)
    await raiseAlert(tx, {
      event: result.check === 'schedules' && result.metrics['overdue'] === true ? 'overdue' : 'unhealthy', severity: result.status === 'warning' ? 'warning' : 'critical', ...about(result),
      // A warning that becomes critical is news; both end together.
      title: titleOf(result), message: textOf(result), dedupKey: `${key}:${result.status}`, details: { check: result.check, status: result.status },
    }, env.log)
  }
  for (const result of before.filter(loud).filter(isBad)) {
    const key = keyOf(result)
    if (stillBad.has(key)) continue
    const subject = result.findings[0]?.subject ?? result.check
    await resolveAlert(tx, {
      event: 'recovery', severity: 'info', ...about(result), title: `${subject} is well again`, message: `Before: ${textOf(result)}`,
      dedupKey: `${key}:recovered`, repeatAfter: 0, resolves: key, details: { check: result.check },
    }, env.log)
  }
}
