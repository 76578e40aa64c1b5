import { Option, type Command } from 'commander'
import { alertEvents, alertSeverities } from '../catalog/statuses.js'
import { channelTypes } from '../notify/channel.js'
import { channelKeys } from '../notify/registry.js'
import {
  addNotifier, alterNotifier, dropNotifier, needNotifier, parseNotifierSettings, switchNotifier, viewNotifiers, type NotifierView,
} from '../operation/settings/notifiers.js'
import { testNotifier } from '../operation/alerts/test.js'
import { repeated } from './arguments.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'
import { facts, table } from './output.js'
import { shellWord } from '../shell.js'

const addHelp = (): string => `
Keys of each type:
${channelTypes.map((type) => `  ${type.padEnd(12)} ${channelKeys(type).join(', ')}`).join('\n')}
Secrets, URLs of chat services among them, are kept sealed in the catalog and never shown. A value may be a reference:
  --set 'url={"$env": "SLACK_WEBHOOK"}'   --set 'password={"$file": "/run/credentials/mail"}'
Events: ${alertEvents.join(', ')}.
Without --event, a notifier is told of all but start and success, and healthchecks of start, success, failure and corruption.`

interface Filters {
  set: string[]
  schedule: string[]
  event: string[]
  minSeverity?: string
  description?: string
}

const filterOptions = (command: Command): Command => command
  .option('--set <key=value>', 'a key of its configuration; several times', repeated, [])
  .option('--schedule <name>', 'only what is about this schedule, or the storages it writes to; several times', repeated, [])
  .addOption(new Option('--event <event>', 'only these events; several times').argParser(repeated).default([] as string[], 'all but start and success'))
  .addOption(new Option('--min-severity <severity>', 'only what is at least as bad').choices(alertSeverities))
  .option('--description <text>', 'for people')

const defineAdd = (command: Command, run: Run): void => {
  filterOptions(command.command('add').description('say who is told when something goes wrong').argument('<name>', 'what to call it')
    .addOption(new Option('--type <type>', 'kind of notifier').choices(channelTypes).makeOptionMandatory()))
    .addHelpText('after', addHelp)
    .action((name: string, { type, set, schedule, event, ...rest }: Filters & { type: string }) =>
      run(async (context) => {
        const { notifier, warnings } = await addNotifier(await environmentOf(context), { name, type, config: parseNotifierSettings(type, set), schedules: schedule, events: event, ...rest })
        for (const warning of warnings) context.out.line(`warning: ${warning}`)
        context.out.result(notifier, () => `notifier ${name} added; "backupd notify test ${shellWord(name)}" tries it`)
      }))
}

const defineChange = (command: Command, run: Run): void => {
  filterOptions(command.command('change').description('change some settings of a notifier; the others stay').argument('<name>', 'name of the notifier'))
    .option('--any-schedule', 'whatever schedule it is')
    .option('--any-event', 'the events that it has without --event')
    .action((name: string, { set, schedule, event, anySchedule, anyEvent, ...rest }: Filters & { anySchedule?: boolean; anyEvent?: boolean }) =>
      run(async (context) => {
        const { notifier, warnings } = await alterNotifier(await environmentOf(context), name, {
          set, ...rest,
          ...(schedule.length > 0 || anySchedule === true ? { schedules: schedule } : {}),
          ...(event.length > 0 || anyEvent === true ? { events: event } : {}),
        })
        for (const warning of warnings) context.out.line(`warning: ${warning}`)
        context.out.result(notifier, () => `notifier ${name} changed`)
      }))
}

const listed = (row: NotifierView) => ({
  ...row,
  state: !row.is_active ? 'disabled' : (row.last_status ?? 'not used yet'),
  only: [
    ...(Array.isArray(row.schedules) ? [`schedules ${row.schedules.join(', ')}`] : []),
    ...(Array.isArray(row.events) ? [`events ${row.events.join(', ')}`] : []),
    ...(row.min_severity === 'info' ? [] : [`from ${row.min_severity}`]),
  ].join('; '),
})

/** `backupd notify add | list | change | test | enable | disable | remove`. */
export const define = (command: Command, run: Run): void => {
  defineAdd(command, run)
  command.command('list').description('all notifiers, and how their last message went').action(() =>
    run(async (context) => {
      const notifiers = await viewNotifiers((await context.catalog()).db)
      const columns = ['name', 'type', 'state', 'only', 'waiting', 'failed', 'last_sent_at', 'last_error']
      context.out.result(notifiers, () => table(columns, notifiers.map(listed), 'There are no notifiers: add one with "backupd notify add NAME --type TYPE".'))
    }))
  defineChange(command, run)
  command.command('test').description('send a test message').argument('<name>', 'name of the notifier')
    .action((name: string) =>
      run(async (context) => {
        const env = await environmentOf(context)
        const notifier = await needNotifier(env.catalog.db, name)
        const { milliseconds } = await testNotifier(env, notifier)
        context.out.result({ name, type: notifier.type, sent: true, milliseconds }, () => `the receiver of ${name} (${notifier.type}) has taken the message, after ${milliseconds} ms`)
      }))
  for (const [verb, active] of [['enable', true], ['disable', false]] as const) {
    command.command(verb).description(active ? 'send alerts to it again' : 'send no alert to it; what waits is dropped').argument('<name>', 'name of the notifier')
      .action((name: string) =>
        run(async (context) => {
          const row = await switchNotifier(await environmentOf(context), name, active)
          context.out.result(row, () => `notifier ${name} ${verb}d`)
        }))
  }
  command.command('remove').description('remove a notifier, and what waits for it').argument('<name>', 'name of the notifier')
    .action((name: string) =>
      run(async (context) => {
        const removed = await dropNotifier(await environmentOf(context), name)
        context.out.result(removed, () => facts({ removed: name }))
      }))
}
