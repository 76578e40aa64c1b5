import type { Command } from 'commander'
import { openPresentCatalog, type Catalog } from '../catalog/connect.js'
import { BackupdError, messageOf } from '../errors.js'
import type { Level } from '../health/check.js'
import { runChecks, type CheckResult } from '../health/registry.js'
import { healthContext } from '../operation/health.js'
import type { Context, Run } from './context.js'

const words: Record<Level, string> = { healthy: 'ok', warning: 'warning', critical: 'PROBLEM' }

const text = (results: readonly CheckResult[]): string =>
  results.flatMap(({ findings }) => findings).map(({ level, subject, message, advice }) =>
    `${words[level].padEnd(8)} ${subject}: ${message}${advice === undefined ? '' : ` -> ${advice}`}`.replaceAll('\n', ' ')).join('\n')

/** The results of all checks, with the catalog as it is: the doctor makes and migrates nothing. */
const examine = async ({ config, log, signal }: Context): Promise<CheckResult[]> => {
  let opening: Promise<Catalog> | undefined
  const catalog = (): Promise<Catalog> => (opening ??= openPresentCatalog({ databaseUrl: config.databaseUrl, stateDir: config.stateDir, log, signal }))
  try {
    return await runChecks(healthContext({ config, log, signal, catalog, thorough: true }))
  } finally {
    const opened = await opening?.catch(() => undefined)
    await opened?.close().catch((error: unknown) => log.warn({ error: messageOf(error) }, 'closing the catalog failed'))
  }
}

/** `backupd doctor`: looks at everything a backup needs, one line each. Exit 1 when something is a problem. */
export const define = (command: Command, run: Run): void => {
  command.addHelpText('after', '\nIt connects to every source, and writes a small object to every storage and removes it again. It makes and migrates no catalog.')
  command.action(() =>
    run(async (context) => {
      const results = await examine(context)
      const problems = results.flatMap(({ findings }) => findings).filter(({ level }) => level === 'critical').length
      const findings = results.flatMap((result) => result.findings.map((finding) => ({ check: result.check, ...finding })))
      context.out.result({ ok: problems === 0, findings }, () => text(results))
      if (problems > 0) throw new BackupdError('doctor.problems', `${problems} ${problems === 1 ? 'problem' : 'problems'} found`)
    }))
}
