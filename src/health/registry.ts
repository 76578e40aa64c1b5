import { throwIfAborted } from '../errors.js'
import { catalogCheck } from './catalog.js'
import { findingOf, worst, type Check, type Finding, type HealthContext, type Level } from './check.js'
import { codecsCheck } from './codecs.js'
import { daemonCheck } from './daemon.js'
import { diskCheck } from './disk.js'
import { keysCheck } from './keys.js'
import { nodeCheck } from './node.js'
import { schedulesCheck } from './schedules.js'
import { secretsCheck } from './secrets.js'
import { sourcesCheck } from './sources.js'
import { stateCheck } from './state.js'
import { storagesCheck } from './storages.js'
import { toolsCheck } from './tools.js'

/** Every check, in the order in which the doctor tells: what others stand on comes first. */
export const checks: readonly Check[] = [
  nodeCheck,
  toolsCheck,
  stateCheck,
  catalogCheck,
  secretsCheck,
  keysCheck,
  codecsCheck,
  sourcesCheck,
  storagesCheck,
  diskCheck,
  schedulesCheck,
  daemonCheck,
]

export interface CheckResult {
  check: string
  level: Level
  findings: Finding[]
  checkedAt: Date
  /** Milliseconds. */
  duration: number
}

const findingsOf = async (check: Check, context: HealthContext): Promise<Finding[]> => {
  if (check.needsCatalog) {
    try {
      await context.catalog()
    } catch {
      throwIfAborted(context.signal)
      return [{ subject: check.name, level: 'warning', message: 'not checked, because the catalog cannot be had' }]
    }
  }
  try {
    return await check.run(context)
  } catch (error) {
    throwIfAborted(context.signal)
    return [findingOf(check.name, error)]
  }
}

/** Runs one check; fails only when it is aborted. */
export const runCheck = async (check: Check, context: HealthContext): Promise<CheckResult> => {
  const checkedAt = new Date()
  const began = performance.now()
  const findings = await findingsOf(check, context)
  return { check: check.name, level: worst(findings.map(({ level }) => level)), findings, checkedAt, duration: performance.now() - began }
}

/** Runs all checks at a time, and gives their results in the order of `chosen`. */
export const runChecks = (context: HealthContext, chosen: readonly Check[] = checks): Promise<CheckResult[]> =>
  Promise.all(chosen.map((check) => runCheck(check, context)))
