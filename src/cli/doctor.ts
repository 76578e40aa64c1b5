import type { Command } from 'commander'
import { BackupdError } from '../errors.js'
import type { Level } from '../health/check.js'
import { runChecks, type CheckResult } from '../health/registry.js'
import { healthContext } from '../operation/health.js'
import type { Run } from './context.js'

const words: Record<Level, string> = { healthy: 'ok', warning: 'warning', critical: 'PROBLEM' }

const text = (results: readonly CheckResult[]): string =>
  results.flatMap(({ findings }) => findings).map(({ level, subject, message, advice }) =>
    `${words[level].padEnd(8)} ${subject}: ${message}${advice === undefined ? '' : ` -> ${advice}`}`.replaceAll('\n', ' ')).join('\n')

/** `backupd doctor`: looks at everything a backup needs, one line each. Exit 1 when something is a problem. */
export const define = (command: Command, run: Run): void => {
  command.addHelpText('after', '\nIt connects to every source, and writes a small object to every storage and removes it again.')
  command.action(() =>
    run(async (context) => {
      const { config, log, signal, catalog } = context
      const results = await runChecks(healthContext({ config, log, signal, catalog, thorough: true }))
      const problems = results.flatMap(({ findings }) => findings).filter(({ level }) => level === 'critical').length
      const findings = results.flatMap((result) => result.findings.map((finding) => ({ check: result.check, ...finding })))
      context.out.result({ ok: problems === 0, findings }, () => text(results))
      if (problems > 0) throw new BackupdError('doctor.problems', `${problems} ${problems === 1 ? 'problem' : 'problems'} found`)
    }))
}
