import { catalogReason } from '../catalog/failures.js'
import { BackupdError, throwIfAborted } from '../errors.js'
import { adminAuditCheck } from './admin-audit.js'
import { catalogCheck } from './catalog.js'
import { within, worst, type Check, type Finding, type HealthContext, type Level } from './check.js'
import { clockCheck } from './clock.js'
import { codecsCheck } from './codecs.js'
import { daemonCheck } from './daemon.js'
import { diskCheck } from './disk.js'
import { failuresCheck } from './failures.js'
import { integrityCheck } from './integrity.js'
import { keysCheck } from './keys.js'
import { nodeCheck } from './node.js'
import { schedulesCheck } from './schedules.js'
import { searchKeysCheck } from './search-keys.js'
import { searchUsageCheck } from './search-usage.js'
import { secretsCheck } from './secrets.js'
import { sizesCheck } from './sizes.js'
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
  clockCheck,
  secretsCheck,
  keysCheck,
  codecsCheck,
  sourcesCheck,
  storagesCheck,
  diskCheck,
  schedulesCheck,
  failuresCheck,
  sizesCheck,
  integrityCheck,
  daemonCheck,
  adminAuditCheck,
  searchUsageCheck,
  searchKeysCheck,
]

/** A check that takes longer is given up. Seconds. */
const PATIENCE = 120

export interface CheckResult {
  check: string
  level: Level
  findings: Finding[]
  checkedAt: Date
  /** Milliseconds. */
  duration: number
  /** Set when the check itself did not come to an end: it is critical, but nothing is known of what it looks at. */
  broken: boolean
}

type Findings = Pick<CheckResult, 'findings' | 'broken'>

const findingsOf = async (check: Check, context: HealthContext, patience: number): Promise<Findings> => {
  if (check.needsCatalog) {
    try {
      await context.catalog()
    } catch {
      throwIfAborted(context.signal)
      return { broken: false, findings: [{ subject: check.name, level: 'warning', message: 'not checked, because the catalog cannot be had' }] }
    }
  }
  try {
    return { broken: false, findings: await within(context, patience, (signal) => check.run({ ...context, signal })) }
  } catch (error) {
    throwIfAborted(context.signal)
    return { broken: true, findings: [{ subject: check.name, level: 'critical', message: catalogReason(error), ...(error instanceof BackupdError && error.hint !== undefined ? { advice: error.hint } : {}) }] }
  }
}

/** Runs one check for at most `patience` seconds; fails only when it is aborted. */
export const runCheck = async (check: Check, context: HealthContext, patience = PATIENCE): Promise<CheckResult> => {
  const checkedAt = new Date()
  const began = performance.now()
  const { findings, broken } = await findingsOf(check, context, patience)
  return { check: check.name, level: worst(findings.map(({ level }) => level)), findings, broken, checkedAt, duration: performance.now() - began }
}

/** Runs all checks at a time, and gives their results in the order of `chosen`. */
export const runChecks = (context: HealthContext, chosen: readonly Check[] = checks, patience = PATIENCE): Promise<CheckResult[]> =>
  Promise.all(chosen.map((check) => runCheck(check, context, patience)))
