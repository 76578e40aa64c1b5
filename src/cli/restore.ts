import type { Command } from 'commander'
import { jsonObject } from '../catalog/json.js'
import { statusHistory, type Recovery } from '../catalog/recoveries.js'
import { BackupdError, messageOf } from '../errors.js'
import type { Environment } from '../operation/environment.js'
import { runRecovery, recordRestore } from '../operation/recovery.js'
import { needBackup, needExecution } from '../operation/request.js'
import { parseGiven } from '../operation/settings/references.js'
import { describePlan, planRestore, type RestoreOptions, type RestorePlan } from '../operation/restore-plan.js'
import { openStorageRow, resolving, storageRow } from '../operation/sources.js'
import { resolveValue } from '../encryption/secrets.js'
import type { Tracker } from '../operation/progress.js'
import type { Validation } from '../operation/restore.js'
import { describeConnection, parseConnection } from '../postgres/connection.js'
import { matches, parsePattern } from '../postgres/patterns.js'
import { keepPresence } from '../daemon/presence.js'
import type { Context, Run } from './context.js'
import { environmentOf } from './environment.js'
import { daemonAlive } from './follow.js'
import { followRecovery } from './follow-recovery.js'
import { showProgress } from './progress.js'
import { repeated, wholeNumber } from './arguments.js'

interface Options {
  into?: string
  to?: string
  overwrite?: boolean
  table: string[]
  schemaOnly?: boolean
  jobs: number
  owner: boolean
  globals?: boolean
  dryRun?: boolean
  detach?: boolean
}

const noTarget = (): BackupdError =>
  new BackupdError('usage', 'say where to restore: either --into DATABASE or --to URL', { kind: 'usage', hint: 'See backupd restore --help.' })

const restoreOptions = async (context: Context, options: Options): Promise<RestoreOptions> => {
  const { into, to, overwrite, table, schemaOnly, jobs, owner, globals } = options
  if ((into === undefined) === (to === undefined)) throw noTarget()
  return {
    target: to === undefined ? { into: into ?? '' } : { to: parseConnection(await resolveValue(parseGiven(to, '--to'), { ...resolving(context), field: '--to' })) },
    overwrite: overwrite === true,
    tables: table,
    schemaOnly: schemaOnly === true,
    jobs,
    noOwner: !owner,
    globals: globals === true,
  }
}

const number = (count: number, one: string): string => `${count} ${one}${count === 1 ? '' : 's'}`

const reportText = (plan: RestorePlan, recovery: Recovery, validation: Validation): string => [
  `restored ${plan.execution.backup_id} into ${describeConnection(plan.target)}`,
  ...(recovery.pre_recovery_backup_id === null ? [] : [`what was there before is in backup ${recovery.pre_recovery_backup_id}`]),
  `${number(validation.tables, 'table')}, ${number(validation.rows, 'row')}, ${validation.passed ? 'as in the backup' : `of which differ: ${number(validation.differences.length, 'table')}`}`,
  ...(Array.isArray(recovery.warnings) ? recovery.warnings.map((text) => `warning: ${String(text)}`) : []),
].join('\n')

interface Done {
  recovery: Recovery
  validation: Validation
}

const doHere = async (context: Context, env: Environment, plan: RestorePlan): Promise<Done> => {
  const leave = await keepPresence(env, 'cli')
  try {
    const { id } = await recordRestore(env, plan, 'here')
    let tracker: Tracker | undefined
    const stop = showProgress(context.out, () => tracker?.progress, plan.database.plain_size)
    return await runRecovery(env, id, plan, (started) => (tracker = started)).finally(stop)
  } finally {
    await leave()
  }
}

// What a daemon may lack that this command has: the private key, the secret key, a variable of the environment.
const onlyHere = new Set(['key.identity_missing', 'key.identity_file', 'secret.wrong_key', 'config.env_missing', 'config.file', 'daemon.gone'])

const carryOut = async (context: Context, env: Environment, plan: RestorePlan): Promise<Done> => {
  if (plan.exists) context.out.line(`${describeConnection(plan.target)} is there already: it is backed up first`)
  if (!(await daemonAlive(env))) return doHere(context, env, plan)
  try {
    return await followRecovery(context, env, (await recordRestore(env, plan, 'daemon')).id, plan.database.plain_size)
  } catch (error) {
    if (!(error instanceof BackupdError) || !onlyHere.has(error.code)) throw error
    context.out.line(`the daemon cannot do it (${error.message}); it is done here`)
    return doHere(context, env, plan)
  }
}

// The target's sealed password is of no use to a reader.
const shown = (recovery: Recovery): Record<string, unknown> => {
  const { target: _target, status_history: _history, ...config } = jsonObject(recovery.recovery_config)
  return { ...recovery, recovery_config: config, status_history: statusHistory(recovery) }
}

// Views and sequences are in the archive only, which is not read for a plan.
const foreseen = ({ options, contents, warnings }: RestorePlan): string[] => [
  ...warnings,
  ...options.tables.filter((text) => !contents.tables.some((table) => matches(parsePattern(text), table)))
    .map((text) => `no table of the backup matches ${text}; unless it means a view or a sequence, nothing of it can be restored`),
]

const planText = (plan: RestorePlan): string => ['This would be done:', ...describePlan(plan).map((step, at) => `  ${at + 1}. ${step}`), ...foreseen(plan).map((text) => `warning: ${text}`)].join('\n')

const restoreHere = async (context: Context, reference: string, options: Options): Promise<void> => {
  for (const pattern of options.table) parsePattern(pattern)
  if (options.into !== undefined && options.to !== undefined) throw noTarget()
  const env = await environmentOf(context)
  // Before what is to be done with it, so that a wrong name is told first.
  const execution = needBackup(await needExecution(env, reference))
  const wanted = await restoreOptions(context, options)
  const storage = await openStorageRow(env, await storageRow(env, execution.storage_backend_id))
  try {
    const plan = await planRestore(env, execution, storage, wanted)
    if (options.detach === true) {
      if (!(await daemonAlive(env))) throw new BackupdError('daemon.none', 'no daemon is running that could do it', { hint: 'Start it with "backupd daemon", or leave out --detach to restore in this process.' })
      const recovery = await recordRestore(env, plan, 'daemon')
      context.out.result(shown(recovery), () => `restore ${recovery.id} is queued`)
    } else if (options.dryRun !== true) {
      const { recovery, validation } = await carryOut(context, env, plan)
      context.out.result(shown(recovery), () => reportText(plan, recovery, validation))
    } else {
      context.out.result(
        { dry_run: true, backup_id: execution.backup_id, target: describeConnection(plan.target), target_exists: plan.exists, steps: describePlan(plan), warnings: foreseen(plan) },
        () => planText(plan),
      )
    }
  } finally {
    await storage.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
  }
}

/** `backupd restore EXECUTION`: a backup back into a database. Exit 1 when it failed, 3 when there is no such backup, 4 when the target or the key is not set up, 5 when the backup is damaged. */
export const define = (command: Command, run: Run): void => {
  command
    .argument('<execution>', 'number, backup_id or latest:SCHEDULE')
    .option('--into <database>', 'a database on the server that was backed up')
    .option('--to <url>', 'a database on any server: a URL, or {"$env":"NAME"} or {"$file":"path"} that hold one')
    .option('--overwrite', 'replace the database if it is there; it is backed up first')
    .option('--table <pattern>', 'only this table (schema.table, * as wildcard); may be given several times', repeated, [])
    .option('--schema-only', 'no rows')
    .option('--jobs <number>', 'how many at once; more than 1 needs room for a copy of the dump', wholeNumber(1, 64), 1)
    .option('--no-owner', 'everything belongs to the connecting role, and no rights are granted')
    .option('--globals', 'first create the roles and tablespaces of the backup that the target lacks')
    .option('--detach', 'leave it to the daemon and return at once')
    .option('--dry-run', 'check everything and say what would be done')
    .action((reference: string, options: Options) => run((context) => restoreHere(context, reference, options)))
}
