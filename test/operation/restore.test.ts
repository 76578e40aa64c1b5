import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { programPath } from '../support/cli.js'
import { databaseContent } from '../support/content.js'
import { startPostgres } from '../support/postgres-server.js'
import { tempDir } from '../support/temp.js'
import { createWorld, type ShownExecution, type World } from './world.js'

interface ShownRecovery {
  id: number
  status: string
  pre_recovery_backup_id: string | null
  recovery_type: string
  restore_target: string
  validation_results: { passed: boolean; tables: number; rows: number; differences: unknown[] }
  status_history: { status: string }[]
}

const backedUp = async (world: World, name = 's', ...rest: string[]): Promise<ShownExecution> => {
  await world.ok(['schedule', 'add', name, '--cron', '@daily', '--storage', 'disk', '--compression', 'zstd', ...rest])
  return (await world.ok(['run-now', name, '--json'])).json<ShownExecution>()
}

const databases = async (world: World): Promise<unknown[]> => (await world.sql('postgres', 'SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1')).map((row) => row['datname'])

t.test('an existing database is replaced only when told so, and is in a backup then', async (t) => {
  const world = await createWorld(t)
  await backedUp(world)
  const before = await databaseContent(world.server.url('shop'))
  await world.sql('shop', 'DELETE FROM orders; CREATE TABLE since (id integer)')
  const changed = await databaseContent(world.server.url('shop'))

  const refused = await world.run(['restore', 'latest:s', '--into', 'shop', '--json'])
  t.equal(refused.code, 1)
  t.match(refused.json(), { error: { code: 'restore.target_exists', hint: /--overwrite/ } })
  t.same(await databaseContent(world.server.url('shop')), changed, 'nothing was touched')

  const done = (await world.ok(['restore', 'latest:s', '--into', 'shop', '--overwrite', '--json'])).json<ShownRecovery>()
  t.match(done, { status: 'completed', restore_target: 'existing_database', pre_recovery_backup_id: /before-restore-shop/ })
  t.same(await databaseContent(world.server.url('shop')), before, 'it is as it was at the backup')
  t.same(await databases(world), ['catalog', 'postgres', 'shop'], 'no copy is left beside it')

  await world.ok(['restore', done.pre_recovery_backup_id ?? '', '--to', world.server.url('undone')])
  t.same(await databaseContent(world.server.url('undone')), changed, 'and what was there can be had back')
})

t.test('single tables, the schema alone, and a look before the leap', async (t) => {
  const world = await createWorld(t)
  await backedUp(world)
  const dry = (await world.ok(['restore', 'latest:s', '--into', 'dry', '--dry-run', '--json'])).json<{ steps: string[]; dry_run: boolean }>()
  t.equal(dry.dry_run, true)
  t.ok(dry.steps.length >= 3)
  t.notOk((await databases(world)).includes('dry'), 'a dry run makes nothing')
  t.same(await world.sql('catalog', 'SELECT count(*)::int AS n FROM recovery_executions'), [{ n: 0 }])

  t.match((await world.ok(['restore', 'latest:s', '--into', 'one', '--table', 'customers', '--json'])).json<ShownRecovery>(), { recovery_type: 'selective_restore' })
  t.same((await world.sql('one', "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).map((row) => row['tablename']), ['customers'])
  t.same(await world.sql('one', 'SELECT count(*)::int AS n FROM customers'), [{ n: 500 }])

  await world.ok(['restore', 'latest:s', '--into', 'bare', '--schema-only'])
  t.same(await world.sql('bare', 'SELECT count(*)::int AS n FROM orders'), [{ n: 0 }])

  const none = await world.run(['restore', 'latest:s', '--into', 'none', '--table', 'no_such_*', '--json'])
  t.equal(none.code, 2)
  t.notOk((await databases(world)).includes('none'))

  await world.sql('shop', 'DELETE FROM orders')
  t.equal((await world.run(['restore', 'latest:s', '--into', 'shop', '--table', 'orders'])).code, 1, 'a table of an existing database needs --overwrite too')
  const depended = await world.run(['restore', 'latest:s', '--into', 'shop', '--table', 'orders', '--overwrite', '--json'])
  t.equal(depended.code, 1, 'a view reads the table, and it is no part of what is restored')
  t.match(depended.json(), { error: { hint: /depend/ } })
  t.same(await world.sql('shop', 'SELECT count(*)::int AS n FROM orders'), [{ n: 0 }], 'nothing was changed')
  const view = (await world.ok(['restore', 'latest:s', '--into', 'view', '--table', 'totals', '--json'])).json<ShownRecovery & { warnings: string[] }>()
  t.match(view, { status: 'completed', validation_passed: true, warnings: [/public\.orders is made without its rows/, /foreign key/] }, 'what a view reads is made for it, and is no difference')
  t.same(await world.sql('view', 'SELECT count(*)::int AS n FROM totals'), [{ n: 0 }])

  await world.sql('shop', 'DROP VIEW totals; ALTER TABLE orders DROP CONSTRAINT orders_customer_id_fkey; DELETE FROM customers WHERE id > 400')
  t.match((await world.ok(['restore', 'latest:s', '--into', 'shop', '--table', 'empty_one', '--overwrite', '--json'])).json(), { validation_passed: true, validation_results: { tables: 1 } }, 'other tables of the database may be newer')
  await world.sql('shop', "INSERT INTO customers SELECT i, 'again' FROM generate_series(401, 500) i")
  await world.ok(['restore', 'latest:s', '--into', 'shop', '--table', 'orders', '--overwrite'])
  t.same(await world.sql('shop', 'SELECT count(*)::int AS n FROM orders'), [{ n: 4000 }])
})

t.test('wrong ways to ask', async (t) => {
  const world = await createWorld(t)
  await backedUp(world)
  const cases: [string[], number][] = [
    [['restore', 'latest:s'], 2],
    [['restore', 'latest:s', '--into', 'a', '--to', world.server.url('b')], 2],
    [['restore', 'latest:nothing', '--into', 'a'], 3],
    [['restore', 'latest:nothing'], 3],
    [['restore', 'latest:s', '--into', 'a', '--table', ''], 2],
    [['restore', 'latest:s', '--into', 'a', '--table', '"bad'], 2],
    [['restore', 'latest:s', '--into', 'a', '--table', 'orders', '--table', 'a.b.c'], 2],
    [['restore', 'latest:s', '--into', ''], 2],
    [['restore', '4711', '--into', 'a'], 3],
    [['restore', 'latest:s', '--to', 'mysql://x/y'], 2],
    [['restore', 'latest:s', '--into', 'a', '--jobs', '0'], 2],
    [['verify', 'latest:s', '--level', 'deep'], 2],
    [['show', '99'], 3],
  ]
  for (const [args, code] of cases) t.equal((await world.run(args)).code, code, args.join(' '))
  t.same(await world.sql('catalog', 'SELECT 1 FROM recovery_executions'), [], 'none of them is on record as a restore')
  t.match(await world.run(['restore', 'latest:nothing']), { stderr: /there is no schedule "nothing"/ })
  t.match((await world.ok(['restore', 'latest:s', '--into', 'a', '--table', 'orders', '--table', 'nobody', '--dry-run', '--json'])).json(), { warnings: [/no table of the backup matches nobody/] })
})

t.test('a server without the roles: they are named, made on request, or done without', async (t) => {
  const world = await createWorld(t)
  const other = await startPostgres()
  t.teardown(() => other.stop())
  await world.sql('shop', "CREATE ROLE clerk; CREATE ROLE boss; ALTER TABLE orders OWNER TO boss; GRANT SELECT ON customers TO clerk")
  await backedUp(world)
  const before = await databaseContent(world.server.url('shop'))
  const refused = await world.run(['restore', 'latest:s', '--to', other.url('copy'), '--json'])
  t.equal(refused.code, 4)
  const { error } = refused.json<{ error: { code: string; message: string } }>()
  t.equal(error.code, 'restore.target_lacks')
  t.match(error.message, /boss/)
  t.match(error.message, /clerk/)
  await world.ok(['restore', 'latest:s', '--to', other.url('plain'), '--no-owner'])
  t.same(await databaseContent(other.url('plain')), before)
  await world.ok(['restore', 'latest:s', '--to', other.url('copy'), '--globals'])
  t.same(await databaseContent(other.url('copy')), before)
  t.notMatch(world.printed.join('\n'), new RegExp(other.password), 'the password of the target is not shown')
  t.notMatch(JSON.stringify(await world.sql('catalog', 'SELECT recovery_config, target_system FROM recovery_executions')), new RegExp(other.password), 'nor kept in clear')
})

t.test('a daemon that runs does the restore', async (t) => {
  const world = await createWorld(t)
  await backedUp(world)
  const before = await databaseContent(world.server.url('shop'))
  const env = {
    PATH: process.env['PATH'] ?? '', HOME: world.stateDir, BACKUPD_STATE_DIR: world.stateDir, BACKUPD_DATABASE_URL: world.server.url('catalog'),
    BACKUPD_SOURCE_URL: world.server.url('shop'), BACKUPD_LISTEN: '127.0.0.1:0',
  }
  const daemon = spawn(process.execPath, [programPath(), 'daemon'], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  let log = ''
  daemon.stdout.on('data', (block: Buffer) => (log += block.toString()))
  const ended = new Promise<number | null>((resolve) => daemon.on('close', resolve))
  t.teardown(() => daemon.kill('SIGKILL'))
  for (let waited = 0; !log.includes('"ready"') && waited < 300; waited += 1) await sleep(100)
  const done = (await world.ok(['restore', 'latest:s', '--into', 'by_daemon', '--json'])).json<ShownRecovery>()
  t.match(done, { status: 'completed' })
  t.match(log, /restore completed/, 'it was the daemon')
  t.same(await databaseContent(world.server.url('by_daemon')), before)

  const elsewhere = join(world.stateDir, 'elsewhere.txt')
  await world.ok(['key', 'generate', '--name', 'elsewhere', '--out', elsewhere])
  await world.ok(['key', 'retire', 'test'])
  await world.ok(['run-now', 's'])
  const here = await world.ok(['restore', 'latest:s', '--into', 'by_command'], { env: { BACKUPD_IDENTITY_FILE: elsewhere } })
  t.match(here.stdout, /done here/, 'without the private key it cannot, and the command does it')
  t.same(await databaseContent(world.server.url('by_command')), before)
  daemon.kill('SIGTERM')
  t.equal(await ended, 0)
})

t.test('killed with the copy of an archive on the disk: the next command clears it away', async (t) => {
  const world = await createWorld(t)
  await backedUp(world)
  const TMPDIR = tempDir(t, 'spool')
  const env = {
    PATH: process.env['PATH'] ?? '', HOME: world.stateDir, TMPDIR, BACKUPD_STATE_DIR: world.stateDir, BACKUPD_DATABASE_URL: world.server.url('catalog'),
    BACKUPD_SOURCE_URL: world.server.url('shop'),
  }
  const spooled = (): string[] => readdirSync(TMPDIR).filter((name) => name.startsWith('backupd-restore-'))
  const restoring = spawn(process.execPath, [programPath(), 'restore', 'latest:s', '--into', 'killed', '--jobs', '2'], { env, stdio: 'ignore' })
  const ended = new Promise<NodeJS.Signals | null>((resolve) => restoring.on('close', (_, signal) => resolve(signal)))
  for (let waited = 0; spooled().length === 0 && restoring.exitCode === null && waited < 30_000; waited += 1) await sleep(2)
  restoring.kill('SIGKILL')
  t.equal(await ended, 'SIGKILL')
  t.equal(spooled().length, 1, 'it was killed with its copy on the disk')
  await world.ok(['list'], { env: { TMPDIR } })
  t.same(readdirSync(TMPDIR).filter((name) => name.startsWith('backupd-')), [], 'nothing is left of it')
})
