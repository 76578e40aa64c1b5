import t from 'tap'
import { machineOn, serverFor, withStorageAndKey, type Failure } from './setup.js'

interface ScheduleRow extends Record<string, unknown> { name: string; next_runs: string[]; next_run_at: string | null }

const server = await serverFor(t)
const env = { BACKUPD_SOURCE_URL: server.url() }

t.test('a schedule is added with everything it can have, and its next runs are shown', async (t) => {
  const machine = await machineOn(t, server, env)
  const { cli } = machine
  await withStorageAndKey(machine)
  await cli(['storage', 'add', 'second', '--type', 'local', '--set', `base_path=${machine.path('second')}`])
  await cli(['source', 'add', 'shop', '--url', 'postgres://elsewhere/shop'])
  const before = Date.now()
  const options = [
    '--cron', '30 2 * * mon-fri', '--timezone', 'Europe/Berlin', '--storage', 'disk', '--source', 'shop', '--type', 'database_only', '--compression', 'gzip', '--level', '9',
    '--no-encrypt', '--no-verify', '--retention-days', '7', '--include', 'public.*', '--include', '"Odd.Name"', '--exclude', 'public.log_*', '--bandwidth', '100',
    '--parallel-uploads', '5', '--copy-to', 'second', '--jobs', '4', '--description', 'every working day',
  ]
  const added = await cli(['schedule', 'add', 'nightly', ...options, '--json'])
  t.equal(added.code, 0, added.stderr)
  const row = added.json<ScheduleRow>()
  t.match(row, {
    name: 'nightly', cron_expression: '30 2 * * mon-fri', timezone: 'Europe/Berlin', storage: 'disk', source: 'shop', source_id: 1, backup_type: 'database_only',
    compression_type: 'gzip', compression_level: 9, encrypt_backup: false, verify_integrity: false, retention_days: 7, include_patterns: ['public.*', '"Odd.Name"'],
    exclude_patterns: ['public.log_*'], bandwidth_limit_mbps: 100, max_parallel_uploads: 5, copy_to_storage: 'second', jobs: 4, is_active: true, description: 'every working day',
  })
  t.equal(row.next_runs.length, 3)
  t.equal(row.next_run_at, row.next_runs[0])
  for (const run of row.next_runs) {
    const clock = new Intl.DateTimeFormat('en-GB', { timeZone: 'Europe/Berlin', weekday: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(new Date(run))
    t.match(clock, /^(Mon|Tue|Wed|Thu|Fri),? 02:30$/)
    t.ok(Date.parse(run) > before)
  }

  const shown = await cli(['schedule', 'add', 'second', '--cron', '@daily', '--timezone', 'Asia/Tokyo', '--storage', 'disk'])
  t.match(shown.stdout, /^schedule second added; its next runs:\n( {2}\S+ 00:00:00 Asia\/Tokyo {2}\(\S+T15:00:00Z\)\n){3}$/)
  const [, second] = (await cli(['schedule', 'list', '--json'])).json<ScheduleRow[]>()
  t.match(second, { compression_type: 'zstd', compression_level: null, encrypt_backup: true, verify_integrity: true, backup_type: 'full', source_id: null, source: 'default', retention_days: 30, include_patterns: null })
})

t.test('what cannot work is refused when it is added', async (t) => {
  const machine = await machineOn(t, server, env)
  const { cli } = machine
  await withStorageAndKey(machine)
  const add = async (...args: string[]) => {
    const { code, json } = await cli(['schedule', 'add', 'x', ...(args.includes('--cron') ? [] : ['--cron', '@daily']), ...(args.includes('--storage') ? [] : ['--storage', 'disk']), ...args, '--json'])
    return [code, json<Failure>().error.code]
  }
  t.strictSame(await add('--cron', '61 * * * *'), [2, 'schedule.cron_invalid'])
  t.strictSame(await add('--cron', '0 0 30 2 *'), [2, 'schedule.cron_invalid'])
  t.strictSame(await add('--timezone', 'Europe/Atlantis'), [2, 'schedule.timezone_invalid'])
  t.strictSame(await add('--type', 'incremental'), [2, 'schedule.backup_type'])
  t.strictSame(await add('--compression', 'bzip2'), [2, 'usage'])
  t.strictSame(await add('--compression', 'gzip', '--level', '20'), [2, 'compression.level'])
  t.strictSame(await add('--compression', 'none', '--level', '3'), [2, 'compression.level'])
  t.strictSame(await add('--storage', 'nowhere'), [3, 'storage.unknown'])
  t.strictSame(await add('--copy-to', 'nowhere'), [3, 'storage.unknown'])
  t.strictSame(await add('--copy-to', 'disk'), [2, 'schedule.copy_to'])
  t.strictSame(await add('--source', 'nowhere'), [3, 'source.not_found'])
  t.strictSame(await add('--include', 'a.b.c'), [2, 'pattern.invalid'])
  t.strictSame(await add('--exclude', '"open'), [2, 'pattern.invalid'])
  t.strictSame(await add('--retention-days', '0'), [2, 'usage'])
  t.strictSame(await add('--bandwidth', '-1'), [2, 'usage'])
  t.strictSame((await cli(['schedule', 'list', '--json'])).json(), [])
  t.equal((await cli(['schedule', 'add', 'x', '--cron', '@daily', '--storage', 'disk'])).code, 0)
  t.strictSame(await add(), [2, 'schedule.exists'])
  t.match(await cli(['schedule', 'add', 'y'.repeat(201), '--cron', '@daily', '--storage', 'disk']), { code: 2, stderr: /more than 200/ })
})

t.test('without a key a schedule says how to make one, unless it does not encrypt', async (t) => {
  const { cli, path } = await machineOn(t, server, env)
  await cli(['storage', 'add', 'disk', '--type', 'local', '--set', `base_path=${path('repository')}`])
  const add = ['schedule', 'add', 'nightly', '--cron', '@daily', '--storage', 'disk']
  t.match(await cli(add), { code: 4, stderr: /there is no key\n.*backupd key generate/ })
  t.match((await cli([...add, '--json'])).json<Failure>(), { error: { code: 'key.none' } })
  t.equal((await cli([...add, '--no-encrypt'])).code, 0)
})

t.test('without the source named default a schedule needs --source', async (t) => {
  const machine = await machineOn(t, server)
  await withStorageAndKey(machine)
  t.match(await machine.cli(['schedule', 'add', 'nightly', '--cron', '@daily', '--storage', 'disk']), { code: 3, stderr: /BACKUPD_SOURCE_URL/ })
})

t.test('a schedule is switched off and on, and removed; its backups stay', async (t) => {
  const machine = await machineOn(t, server, env)
  const { cli } = machine
  await withStorageAndKey(machine)
  await cli(['schedule', 'add', 'nightly', '--cron', '@daily', '--storage', 'disk'])
  t.match((await cli(['schedule', 'disable', 'nightly', '--json'])).json(), { is_active: false, next_run_at: null })
  t.match((await cli(['schedule', 'list'])).stdout, /nightly +@daily UTC .* disabled/)
  await machine.query(`UPDATE backup_schedules SET next_run_at = '2020-01-01'`)
  t.match(await cli(['schedule', 'enable', 'nightly']), { code: 0, stdout: /enabled; it runs next at \S+ 00:00:00 UTC/ })
  const [row] = (await cli(['schedule', 'list', '--json'])).json<ScheduleRow[]>()
  t.ok(Date.parse(row?.next_run_at ?? '') > Date.now(), 'what was missed meanwhile is not made up for')

  await machine.query(`INSERT INTO backup_executions (backup_id, schedule_id, storage_backend_id, backup_type, triggered_by, status, started_at, included_components, attempt)
    VALUES ('b1', 1, 1, 'full', 'manual', 'running', now(), '[]', 1)`)
  t.match(await cli(['schedule', 'remove', 'nightly']), { code: 1, stderr: /in use: 1 of its executions waits or runs/ })
  await machine.query(`UPDATE backup_executions SET status = 'completed'`)
  t.match((await cli(['schedule', 'remove', 'nightly', '--json'])).json(), { name: 'nightly', executions_kept: 1 })
  t.match(await machine.query('SELECT backup_id, schedule_id FROM backup_executions'), [{ backup_id: 'b1', schedule_id: null }])
  t.equal((await cli(['schedule', 'remove', 'nightly'])).code, 3)
  t.equal((await cli(['schedule', 'enable', 'nightly'])).code, 3)
})

t.test('a schedule that plain SQL inserted is shown and switched too', async (t) => {
  const machine = await machineOn(t, server, env)
  await withStorageAndKey(machine)
  await machine.query(`INSERT INTO backup_schedules (name, cron_expression, backup_type, storage_backend_id) VALUES ('theirs', '0 3 * * *', 'full', 1)`)
  t.match((await machine.cli(['schedule', 'list', '--json'])).json(), [{ name: 'theirs', source: 'default', storage: 'disk', compression_type: 'gzip' }])
  t.equal((await machine.cli(['schedule', 'disable', 'theirs'])).code, 0)
})

t.test('a test of a schedule looks at all that a run would need, and backs up nothing', async (t) => {
  const machine = await machineOn(t, server, { BACKUPD_SOURCE_URL: server.url() })
  const { cli, path } = machine
  await withStorageAndKey(machine)
  await cli(['storage', 'add', 'spare', '--type', 'local', '--set', `base_path=${path('spare')}`])
  await cli(['schedule', 'add', 'nightly', '--cron', '@daily', '--storage', 'disk', '--copy-to', 'spare'])
  const good = await cli(['schedule', 'test', 'nightly', '--json'])
  t.equal(good.code, 0, good.stderr)
  t.match(good.json(), { name: 'nightly', source: { name: 'default' }, storages: [{ name: 'disk', healthy: true }, { name: 'spare', healthy: true }], problems: [] })
  t.match(await machine.query('SELECT count(*)::int AS n FROM backup_executions'), [{ n: 0 }])
  await cli(['storage', 'disable', 'spare'])
  t.match(await cli(['schedule', 'test', 'nightly']), { code: 4, stdout: /problem: storage spare: it is disabled/ })
  t.match(await cli(['schedule', 'test', 'nightly'], { env: { BACKUPD_SOURCE_URL: 'postgres://u@127.0.0.1:1/d' } }), { code: 1, stderr: /cannot reach/ })
  t.equal((await cli(['schedule', 'test', 'nobody'])).code, 3)
})
