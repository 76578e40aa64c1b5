import { InvalidArgumentError, Option, type Command } from 'commander'
import { supportedBackupTypes } from '../catalog/statuses.js'
import { addPolicy, dropPolicy, policyNamed, viewPolicies, type PolicyRules, type PolicyView, type Reach } from '../operation/settings/policies.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'
import { facts, table } from './output.js'

interface AddOptions extends PolicyRules {
  storage: string
  type?: string
}

const whole = (text: string): number => {
  if (/^[+-]?\d{1,9}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It must be a whole number.')
}
const reach = (text: string): Reach => (text === 'none' ? 'none' : whole(text))

const addHelp = `
A backup is kept when any rule keeps it: a policy's, another policy's, or its schedule's --retention-days. The rules of slots keep the newest good
backup of each day, week, month or year. Leave a rule out for its default, say none to do without it.
  backupd policy add offsite --storage vault --days 7 --daily 14 --weekly 8 --monthly 24 --yearly none`

const slot = (count: number): string => (count === 0 ? 'none' : String(count))

const listed = (row: PolicyView) => ({
  ...row, type: row.backup_type ?? 'all', days: row.retention_days, daily: slot(row.keep_daily_for_days), weekly: slot(row.keep_weekly_for_weeks),
  monthly: slot(row.keep_monthly_for_months), yearly: slot(row.keep_yearly_for_years), min: row.min_backups_to_keep,
  state: row.is_active ? 'active' : 'inactive', last_cleanup: row.last_cleanup_at, deleted: row.total_backups_deleted,
})

const policyText = (row: PolicyView): string => {
  const { name, storage, type, state, days, daily, weekly, monthly, yearly, min, last_cleanup, deleted } = listed(row)
  return facts({
    policy: name, storage, type, state, every_backup: `for ${days} days`,
    newest_of_a_day: `for ${daily} days`, newest_of_a_week: `for ${weekly} weeks`, newest_of_a_month: `for ${monthly} months`, newest_of_a_year: `for ${yearly} years`,
    at_least: `${min} good backups of each schedule`, last_cleanup, cleanups: row.total_cleanups, deleted,
  }).replaceAll(/for none (days|weeks|months|years)/g, 'not kept for that')
}

/** `backupd policy add | list | show | remove`. */
export const define = (command: Command, run: Run): void => {
  command.command('add').description('say how long backups in a storage are kept').argument('<name>', 'what to call it')
    .requiredOption('--storage <name>', 'whose backups')
    .addOption(new Option('--type <type>', `only those of this type: ${supportedBackupTypes.join(', ')}`))
    .option('--days <n>', 'keep every backup for so many days (default: 30)', whole)
    .option('--daily <n>', 'keep the newest of each day for so many days, or none (default: 7)', reach)
    .option('--weekly <n>', 'keep the newest of each week for so many weeks, or none (default: 4)', reach)
    .option('--monthly <n>', 'keep the newest of each month for so many months, or none (default: 12)', reach)
    .option('--yearly <n>', 'keep the newest of each year for so many years, or none (default: 5)', reach)
    .option('--min <n>', 'keep so many good backups of each schedule, whatever their age (default: 3)', whole)
    .addHelpText('after', addHelp)
    .action((name: string, options: AddOptions) =>
      run(async (context) => {
        const policy = await addPolicy(await environmentOf(context), { name, ...options })
        context.out.result(policy, () => `policy ${name} added; "backupd retention plan" shows what it would do`)
      }))
  command.command('list').description('all policies').action(() =>
    run(async (context) => {
      const policies = await viewPolicies((await context.catalog()).db)
      const columns = ['name', 'storage', 'type', 'state', 'days', 'daily', 'weekly', 'monthly', 'yearly', 'min', 'last_cleanup', 'deleted']
      context.out.result(policies, () => table(columns, policies.map(listed), 'There are no policies: backups are kept as long as their schedules say.'))
    }))
  command.command('show').description('one policy').argument('<name>', 'name of the policy').action((name: string) =>
    run(async (context) => {
      const policy = await policyNamed((await context.catalog()).db, name)
      context.out.result(policy, () => policyText(policy))
    }))
  command.command('remove').description('remove a policy; nothing is deleted by that').argument('<name>', 'name of the policy')
    .action((name: string) =>
      run(async (context) => {
        const policy = await dropPolicy(await environmentOf(context), name)
        context.out.result(policy, () => `policy ${name} removed; the other policies and the schedules say from now on what is kept in ${policy.storage ?? 'its storage'}`)
      }))
}
