import { Option, type Command } from 'commander'
import { compressionTypes, supportedBackupTypes } from '../catalog/statuses.js'
import { HOOK_TIMEOUT, hooksOf, parseHook, setHooks } from '../operation/settings/hooks.js'
import { addSchedule, dropSchedule, scheduleLimits, scheduleNamed, switchSchedule, viewSchedules, type ScheduleView } from '../operation/settings/schedules.js'
import { repeated, wholeNumber } from './arguments.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'
import { facts, table } from './output.js'
import { defineTest } from './schedule-test.js'

interface AddOptions {
  cron: string
  timezone: string
  storage: string
  source?: string
  type: string
  compression: string
  level?: number
  encrypt: boolean
  verify: boolean
  retentionDays: number
  include: string[]
  exclude: string[]
  bandwidth?: number
  parallelUploads: number
  copyTo?: string
  jobs?: number
  description?: string
  preHook?: string
  postHook?: string
  hookShell?: boolean
  hookTimeout?: number
}

const addHelp = `
EXPR is five fields (minute hour day month weekday), six with seconds first, or @hourly, @daily, @weekly, @monthly, @yearly.
TYPE: full is the database and the server's roles and tablespaces, database_only leaves those out, configuration has no rows.
PATTERN is table, schema.table or either with * for any characters, such as 'public.log_*'; upper and lower case are different.
  backupd schedule add nightly --cron '0 2 * * *' --timezone Europe/Berlin --storage disk --source shop --exclude 'public.cache_*'`

/** A time as the clock of `zone` shows it. */
const local = (time: Date, zone: string): string =>
  new Intl.DateTimeFormat('sv-SE', { timeZone: zone, dateStyle: 'short', timeStyle: 'medium' }).format(time)

const utc = (time: Date): string => time.toISOString().replace('.000Z', 'Z')

const addedText = ({ name, timezone }: ScheduleView, runs: readonly Date[]): string =>
  [`schedule ${name} added; its next runs:`, ...runs.map((time) => `  ${local(time, timezone)} ${timezone}${timezone === 'UTC' ? '' : `  (${utc(time)})`}`)].join('\n')

const defineAdd = (command: Command, run: Run): void => {
  command.command('add').description('say when and how a source is backed up, and where to').argument('<name>', 'what to call it')
    .requiredOption('--cron <expr>', 'when')
    .option('--timezone <zone>', 'whose clock that is, such as Europe/Berlin', 'UTC')
    .requiredOption('--storage <name>', 'where to')
    .option('--source <name>', 'what (default: the source named default)')
    .addOption(new Option('--type <type>', `one of ${supportedBackupTypes.join(', ')}`).default('full'))
    .addOption(new Option('--compression <codec>', 'how parts are compressed').choices(compressionTypes).default('zstd'))
    .option('--level <n>', 'compression level (default: that of the codec)', wholeNumber(...scheduleLimits.level))
    .option('--no-encrypt', 'store readable backups')
    .option('--no-verify', 'do not read backups back after they were stored')
    .option('--retention-days <n>', 'how long backups are kept', wholeNumber(...scheduleLimits.retentionDays), 30)
    .option('--include <pattern>', 'only these tables; several times', repeated, [])
    .option('--exclude <pattern>', 'all but these tables; several times', repeated, [])
    .option('--bandwidth <mbps>', 'limit in megabits per second', wholeNumber(...scheduleLimits.bandwidth))
    .option('--parallel-uploads <n>', 'pieces of an object in flight at a time', wholeNumber(...scheduleLimits.parallelUploads), 3)
    .option('--copy-to <storage>', 'store a copy of each backup there')
    .option('--jobs <n>', 'connections to dump with; kept for a later version, which this one warns of', wholeNumber(...scheduleLimits.jobs))
    .option('--description <text>', 'for people')
    .option('--pre-hook <command>', 'run before each backup, as a JSON list of program and arguments; if it fails, there is no backup')
    .option('--post-hook <command>', 'run after each backup, however it ended')
    .option('--hook-shell', 'hooks are scripts for /bin/sh in place of lists')
    .option('--hook-timeout <seconds>', `how long a hook may take (default: ${HOOK_TIMEOUT})`, wholeNumber(1, 86_400))
    .addHelpText('after', addHelp)
    .action((name: string, { preHook, postHook, hookShell: shell, hookTimeout: timeout, ...options }: AddOptions) =>
      run(async (context) => {
        const hook = (text: string | undefined) => (text === undefined ? null : parseHook(text, { shell, timeout }))
        const hooks = preHook === undefined && postHook === undefined ? {} : { hooks: { pre: hook(preHook), post: hook(postHook) } }
        const { schedule, nextRuns } = await addSchedule(await environmentOf(context), { name, ...options, ...hooks })
        context.out.result({ ...schedule, next_runs: nextRuns }, () => addedText(schedule, nextRuns))
      }))
}

const listed = (row: ScheduleView) => ({
  ...row,
  when: `${row.cron_expression} ${row.timezone}`,
  type: row.backup_type,
  parts: `${row.compression_type}${row.encrypt_backup ? ', encrypted' : ''}`,
  next_run: row.is_active ? row.next_run_at : 'disabled',
  last_run: row.last_run_at === null ? null : `${row.last_run_at.toISOString().slice(0, 19)}Z ${row.last_status ?? ''}`,
})

const defineSwitches = (command: Command, run: Run): void => {
  for (const [verb, active] of [['enable', true], ['disable', false]] as const) {
    command.command(verb).description(active ? 'let it run again, from its next time on' : 'let it run no more').argument('<name>', 'name of the schedule')
      .action((name: string) =>
        run(async (context) => {
          const row = await switchSchedule(await environmentOf(context), name, active)
          const next = row.next_run_at === null ? '' : `; it runs next at ${local(row.next_run_at, row.timezone)} ${row.timezone}`
          context.out.result(row, () => `schedule ${name} ${verb}d${next}`)
        }))
  }
}

interface HookOptions {
  preHook?: string | false
  postHook?: string | false
  hookShell?: boolean
  hookTimeout?: number
}

const defineHooks = (command: Command, run: Run): void => {
  command.command('hooks').description('change what is run before and after the backups of a schedule; what is not named stays').argument('<name>', 'name of the schedule')
    .option('--pre-hook <command>', 'run before each backup, as a JSON list of program and arguments; if it fails, there is no backup')
    .option('--no-pre-hook', 'run nothing before')
    .option('--post-hook <command>', 'run after each backup, however it ended')
    .option('--no-post-hook', 'run nothing after')
    .option('--hook-shell', 'the hooks given are scripts for /bin/sh in place of lists')
    .option('--hook-timeout <seconds>', `how long the hooks given may take (default: ${HOOK_TIMEOUT})`, wholeNumber(1, 86_400))
    .action((name: string, { preHook, postHook, hookShell: shell, hookTimeout: timeout }: HookOptions) =>
      run(async (context) => {
        const env = await environmentOf(context)
        const hook = (given: string | false | undefined) => (given === undefined || given === false ? (given === false ? null : undefined) : parseHook(given, { shell, timeout }))
        const change = { pre: hook(preHook), post: hook(postHook) }
        const shows = change.pre === undefined && change.post === undefined
        const hooks = shows ? hooksOf(await scheduleNamed(env.catalog.db, name)) : await setHooks(env, name, change)
        context.out.result({ name, pre: hooks.pre ?? null, post: hooks.post ?? null }, () => facts({ schedule: name, pre: hooks.pre, post: hooks.post }))
      }))
}

/** `backupd schedule add | hooks | list | test | enable | disable | remove`. */
export const define = (command: Command, run: Run): void => {
  defineAdd(command, run)
  command.command('list').description('all schedules').action(() =>
    run(async (context) => {
      const schedules = await viewSchedules((await context.catalog()).db)
      const columns = ['name', 'when', 'source', 'storage', 'type', 'parts', 'next_run', 'last_run']
      context.out.result(schedules, () => table(columns, schedules.map(listed), 'There are no schedules: add one with "backupd schedule add NAME --cron EXPR --storage NAME".'))
    }))
  defineTest(command, run)
  defineHooks(command, run)
  defineSwitches(command, run)
  command.command('remove').description('remove a schedule; its backups stay').argument('<name>', 'name of the schedule')
    .action((name: string) =>
      run(async (context) => {
        const { schedule, executions } = await dropSchedule(await environmentOf(context), name)
        context.out.result({ ...schedule, executions_kept: executions }, () => `schedule ${name} removed${executions === 0 ? '' : `; ${executions} executions of it stay, without it`}`)
      }))
}
