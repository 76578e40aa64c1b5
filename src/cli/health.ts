import type { Command } from 'commander'
import { lastRound, resultsOf, type RecordedCheck } from '../catalog/health.js'
import type { HealthStatus } from '../catalog/statuses.js'
import { BackupdError } from '../errors.js'
import { healthContext } from '../operation/health.js'
import { overallOf, probingNow, rowsOf } from '../operation/health-round.js'
import { runChecks } from '../health/registry.js'
import type { Context, Run } from './context.js'

const words: Record<HealthStatus, string> = { healthy: 'ok', warning: 'warning', critical: 'CRITICAL', error: 'ERROR' }

interface Report {
  checks: readonly RecordedCheck[]
  /** Seconds since the round began; undefined: the checks were made now. */
  age: number | undefined
}

const look = async ({ config, log, signal, catalog }: Context): Promise<Report> => {
  const probing = await catalog().then(({ db }) => probingNow(db), () => undefined)
  const results = await runChecks(healthContext({ config, log, signal, catalog, thorough: false, ...(probing === undefined ? {} : { probing }) }))
  return { age: undefined, checks: results.flatMap(rowsOf).map((row) => ({ ...row, age: 0 })) }
}

const recall = async ({ catalog }: Context): Promise<Report> => {
  const { db } = await catalog()
  const round = await lastRound(db)
  if (round === undefined) throw new BackupdError('health.none', 'no daemon has recorded its health checks yet', { kind: 'notFound', hint: 'Start one with "backupd daemon", or leave out --last.' })
  return { age: round.age, checks: await resultsOf(db, round) }
}

const ageText = (seconds: number): string => (seconds < 120 ? `${Math.round(seconds)} s` : seconds < 7_200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`)

const text = ({ checks, age }: Report, overall: HealthStatus): string => [
  ...checks.flatMap(({ status, findings }) => findings.map(({ subject, level, message, advice }) =>
    `${words[status === 'error' ? status : (level as HealthStatus)].padEnd(8)} ${subject}: ${message}${advice === undefined ? '' : ` -> ${advice}`}`.replaceAll('\n', ' '))),
  `${words[overall].padEnd(8)} in all${age === undefined ? '' : `, ${ageText(age)} ago`}`,
].join('\n')

/** `backupd health`: makes all checks now, or shows the daemons' last round. Exit 1 when something is critical or could not be checked; 3 with --last when there is none. */
export const define = (command: Command, run: Run): void => {
  command
    .option('--last', 'what a daemon recorded last, instead of looking now')
    .option('--strict', 'end with 1 on a warning too')
    .addHelpText('after', '\nIt writes a small object to every storage and removes it again; nothing is recorded and nobody is alerted. Exit code 1: something is critical.')
    .action((options: { last?: true; strict?: true }) =>
      run(async (context) => {
        const report = await (options.last === true ? recall(context) : look(context))
        const status = overallOf(report.checks)
        context.out.result({
          status, age_seconds: report.age === undefined ? 0 : Math.round(report.age),
          checks: report.checks.map(({ check, type, target, status: found, score, findings, metrics, age }) => ({ check, type, target, status: found, health_score: score, age_seconds: Math.round(age), findings, metrics })),
        }, () => text(report, status))
        const bad = report.checks.filter((one) => one.status === 'critical' || one.status === 'error' || (options.strict === true && one.status === 'warning')).length
        if (bad > 0) throw new BackupdError('health.bad', `${bad} of ${report.checks.length} results ${bad === 1 ? 'is' : 'are'} ${options.strict === true ? 'not healthy' : 'critical'}`)
      }))
}
