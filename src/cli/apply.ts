import type { Command } from 'commander'
import { createInterface } from 'node:readline/promises'
import { BackupdError } from '../errors.js'
import { applyConfiguration, planConfiguration, type Application } from '../operation/apply/apply.js'
import type { Change, FieldChange } from '../operation/apply/difference.js'
import { parseConfiguration, readConfigurationText } from '../operation/apply/file.js'
import type { Context, Run } from './context.js'
import { environmentOf } from './environment.js'

interface Options {
  dryRun?: boolean
  yes?: boolean
  prune?: boolean
}

const help = `
FILE is YAML or JSON, or - for standard input; docs/configuration.md describes it, and docs/backupd.schema.json is its schema.
What the file names is made to be what the file says; a field that it leaves out gets its default. What it does not name stays, unless
--prune is given, which removes it from every list that the file has. All of it happens, or nothing.
A secret is text, {$env: NAME} or {$file: /path} to be looked up whenever it is needed, or one of these inside {$seal: …} to be looked up now
and kept sealed.
  backupd export --out backupd.yaml
  backupd apply backupd.yaml --dry-run
  backupd apply backupd.yaml --yes --prune`

const marks = { add: '+', change: '~', remove: '-' } as const

const valueText = (value: unknown): string => {
  if (value === undefined) return 'nothing'
  return typeof value === 'string' ? value : JSON.stringify(value)
}

const fieldText = ({ field, before, after }: FieldChange, action: Change['action']): string => {
  if (action === 'add') return `    ${field}: ${valueText(after)}`
  return before === '[secret]' && after === '[secret]' ? `    ${field}: changed` : `    ${field}: ${valueText(before)} → ${valueText(after)}`
}

const changeText = ({ action, type, name, fields }: Change): string =>
  [`${marks[action]} ${type} ${name}`, ...fields.map((field) => fieldText(field, action))].join('\n')

const countText = (changes: readonly Change[]): string => {
  const count = (action: Change['action']): number => changes.filter((change) => change.action === action).length
  return `${count('add')} to add, ${count('change')} to change, ${count('remove')} to remove`
}

const nothing = 'nothing to do: the configuration is what the file says'

const planText = (changes: readonly Change[]): string =>
  changes.length === 0 ? nothing : `${changes.map(changeText).join('\n')}\n${countText(changes)}`

/** Whether somebody is there who can be asked. */
const attended = ({ out }: Context): boolean => !out.json && process.stdin.isTTY && process.stdout.isTTY

const agree = async ({ signal }: Context): Promise<void> => {
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  try {
    const answer = await terminal.question('Do this? [y/N] ', { signal })
    if (/^y(es)?$/i.test(answer.trim())) return
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    terminal.close()
  }
  throw new BackupdError('apply.declined', 'nothing was changed')
}

const applied = async (context: Context, name: string, { dryRun = false, yes = false, prune = false }: Options): Promise<void> => {
  const file = parseConfiguration(name === '-' ? '<stdin>' : name, await readConfigurationText(name, process.stdin))
  const env = await environmentOf(context)
  const answer = ({ changes, warnings }: Application, done: boolean, text: string): void => {
    for (const warning of warnings) context.out.line(`warning: ${warning}`)
    context.out.result({ file: file.name, dry_run: dryRun, prune, applied: done, changes, warnings }, () => text)
  }
  if (yes && !dryRun) {
    const done = await applyConfiguration(env, file, { prune })
    answer(done, done.changes.length > 0, done.changes.length === 0 ? nothing : `${done.changes.map(changeText).join('\n')}\ndone: ${countText(done.changes).replaceAll(' to ', ' ').replace('add', 'added').replace('change', 'changed').replace('remove', 'removed')}`)
    return
  }
  const plan = await planConfiguration(env, file, { prune })
  if (dryRun || plan.changes.length === 0) return answer(plan, false, planText(plan.changes))
  if (!attended(context)) {
    if (!context.out.json) context.out.line(planText(plan.changes))
    throw new BackupdError('apply.unconfirmed', 'nothing was changed: there is no terminal to ask at', { kind: 'usage', hint: 'Say --yes to do it, or --dry-run to see the plan only.', details: { changes: plan.changes } })
  }
  for (const warning of plan.warnings) context.out.line(`warning: ${warning}`)
  context.out.line(planText(plan.changes))
  await agree(context)
  const done = await applyConfiguration(env, file, { prune }, plan.changes)
  context.out.result(done, () => 'done')
}

/** `backupd apply FILE`. */
export const define = (command: Command, run: Run): void => {
  command.argument('<file>', 'the configuration')
    .option('--dry-run', 'show what would be done, and do nothing')
    .option('-y, --yes', 'do it without asking')
    .option('--prune', 'remove what the file does not name, in every list that it has')
    .addHelpText('after', help)
    .action((file: string, options: Options) => run((context) => applied(context, file, options)))
}
