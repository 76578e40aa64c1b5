import t from 'tap'
import { machineOn, serverFor, withStorageAndKey, type Failure } from './setup.js'

const server = await serverFor(t)

t.test('policies are added, shown, listed and removed, on record', async (t) => {
  const machine = await machineOn(t, server)
  const { cli, query } = machine
  await withStorageAndKey(machine)
  t.match((await cli(['policy', 'list'])).stdout, /There are no policies/)
  const added = await cli(['policy', 'add', 'long', '--storage', 'disk', '--type', 'full', '--days', '7', '--daily', '14', '--weekly', '8', '--monthly', '24', '--yearly', 'none', '--min', '5', '--json'])
  t.equal(added.code, 0, added.stderr)
  const rules = {
    name: 'long', storage: 'disk', backup_type: 'full', retention_days: 7, keep_daily_for_days: 14, keep_weekly_for_weeks: 8, keep_monthly_for_months: 24, keep_yearly_for_years: 0,
    min_backups_to_keep: 5, is_active: true,
  }
  t.match(added.json(), rules)
  t.match(await cli(['policy', 'add', 'plain', '--storage', 'disk']), { code: 0, stdout: /policy plain added/ })
  t.match((await cli(['policy', 'list', '--json'])).json(), [rules, { name: 'plain', backup_type: null, retention_days: 30, keep_daily_for_days: 7, keep_weekly_for_weeks: 4, keep_monthly_for_months: 12, keep_yearly_for_years: 5, min_backups_to_keep: 3 }])
  t.match((await cli(['policy', 'list'])).stdout, /long +disk +full +active +7 +14 +8 +24 +none +5/)
  t.match((await cli(['policy', 'show', 'long'])).stdout, /newest of a month +for 24 months\nnewest of a year +not kept for that\n/)
  t.match((await cli(['policy', 'show', 'long', '--json'])).json(), rules)

  await query(`INSERT INTO backup_cleanup_history (cleanup_id, retention_policy_id, storage_backend_id, triggered_by, started_at, status) VALUES ('c', 1, 1, 'manual', now(), 'completed')`)
  for (const name of ['long', 'plain']) t.match(await cli(['policy', 'remove', name]), { code: 0, stdout: /removed/ })
  t.same((await cli(['policy', 'list', '--json'])).json(), [])
  t.match(await query('SELECT name, is_active FROM backup_retention_policies'), [{ name: 'long', is_active: false }], 'one with a history stays out of sight')
  t.equal((await cli(['policy', 'remove', 'long'])).code, 3)
  t.equal((await cli(['policy', 'show', 'long'])).code, 3)
  t.equal((await cli(['policy', 'add', 'long', '--storage', 'disk'])).code, 0, 'and its name is free')
  t.match(await query(`SELECT event_type FROM backup_audit_logs WHERE event_type LIKE 'policy.%' ORDER BY id`),
    ['policy.created', 'policy.created', 'policy.removed', 'policy.removed', 'policy.removed', 'policy.created'].map((event_type) => ({ event_type })), 'the attempt in vain too')
})

t.test('what makes no sense is refused, and says why', async (t) => {
  const machine = await machineOn(t, server)
  const { cli, query } = machine
  await withStorageAndKey(machine)
  const add = async (...args: string[]) => {
    const { code, json } = await cli(['policy', 'add', 'x', ...(args.includes('--storage') ? [] : ['--storage', 'disk']), ...args, '--json'])
    const { error } = json<Failure>()
    return [code, error.code, `${error.message} ${error.hint ?? ''}`] as const
  }
  for (const [option, value] of [['--days', '0'], ['--daily', '-3'], ['--weekly', '-1'], ['--monthly', '0'], ['--min', '0'], ['--min', '-3']] as const) {
    t.match(await add(option, value), [2, 'policy.rules_invalid', new RegExp(`x: (retention|min|keep)_.* is ${value}, and must be a whole number from 1`)])
  }
  for (const [option, value] of [['--days', '1.5'], ['--daily', ''], ['--min', 'many']] as const) t.match(await add(option, value), [2, 'usage'])
  t.match(await add('--yearly', '0'), [2, 'policy.rules_invalid', /say "none"/])
  t.match(await add('--days', 'none'), [2, 'usage'], 'no policy is without days')
  t.match(await add('--yearly', '101'), [2, 'policy.rules_invalid', /from 1 to 100/])
  t.match(await add('--daily', '60', '--weekly', '4'), [2, 'policy.rules_invalid', /contradict each other: daily backups are kept for 60 days, and weekly ones for only 4 weeks/])
  t.match(await add('--weekly', '100', '--yearly', '1'), [2, 'policy.rules_invalid', /weekly backups are kept for 100 weeks, and yearly ones for only 1 years/])
  t.match(await add('--type', 'incremental'), [2, 'policy.type'])
  t.match(await add('--storage', 'nowhere'), [3, 'storage.unknown'])
  t.match(await cli(['policy', 'add', ' y', '--storage', 'disk']), { code: 2, stderr: /no name for a policy/ })
  t.equal((await cli(['policy', 'add', 'x'])).code, 2, 'without a storage')
  t.same(await query('SELECT 1 FROM backup_retention_policies'), [])
  t.equal((await cli(['policy', 'add', 'x', '--storage', 'disk', '--daily', '60'])).code, 0, 'a default that is overtaken is no contradiction')
  t.match(await add(), [2, 'policy.exists'])
})
