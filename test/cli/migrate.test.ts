import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { machineOn, serverFor, type Failure } from './setup.js'

interface Status { applied: { tag: string }[]; pending: string[]; unknown: string[] }

const server = await serverFor(t)
const all = ['0000_shared_tables', '0001_backupd', '0002_operations', '0003_audit_guard']

t.test('migrate says what it did, status what there is to do, down what it wrote away', async (t) => {
  const machine = await machineOn(t, server)
  const { cli } = machine
  const before = (await cli(['migrate', 'status', '--json'])).json<Status>()
  t.match(before, { applied: [], unknown: [] })
  const tags = before.pending
  t.strictSame(tags.slice(0, 4), all)
  t.match(await machine.query(`SELECT count(*)::int AS n FROM pg_tables WHERE schemaname = 'public'`), [{ n: 0 }], 'status changes nothing')
  t.match((await cli(['migrate', '--json'])).json(), { applied: tags, migrations: tags, adopted: false })
  t.match((await cli(['migrate', '--json'])).json(), { applied: [], migrations: tags })
  t.match((await cli(['migrate'])).stdout, /is up to date/)
  t.match((await cli(['migrate', 'status'])).stdout, /0000_shared_tables +applied +20/)

  await cli(['source', 'add', 'shop', '--url', 'postgres://elsewhere/shop'])
  const folder = machine.path('export')
  t.match(await cli(['migrate', 'down', '--to', '1']), { code: 2, stderr: /loses .*table backup_sources \(1 row\)[\s\S]*--export DIR/ })
  t.match(await cli(['migrate', 'down', '--to', '1', '--export', folder, '--discard-data']), { code: 2 })
  t.match(await cli(['migrate', 'down', '--to', '1', '--dry-run']), { code: 0, stdout: /would be lost:[\s\S]*table backup_sources \(1 row\)/ })
  writeFileSync(machine.path('file'), '')
  t.match(await cli(['migrate', 'down', '--to', '1', '--export', machine.path('file')]), { code: 4, stderr: /nothing was dropped/ })
  const down = await cli(['migrate', 'down', '--to', '1', '--export', folder, '--json'])
  t.equal(down.code, 0, down.stderr)
  t.match(down.json(), { reverted: tags.slice(1).reverse() })
  t.match(readFileSync(join(folder, '0001_backupd.backup_sources.csv'), 'utf8'), /\n1,shop,/)
  const after = (await cli(['migrate', 'status', '--json'])).json<Status>()
  t.strictSame([after.applied.map(({ tag }) => tag), after.pending], [tags.slice(0, 1), tags.slice(1)])
  t.match((await cli(['migrate', 'down', '--to', '1', '--export', folder])).stdout, /nothing was taken back/)
  t.equal((await cli(['source', 'list'])).code, 0, 'the next command migrates again')
})

t.test('a newer schema, a database that is not there and a server that is not there end with exit code 4', async (t) => {
  const machine = await machineOn(t, server)
  await machine.cli(['migrate'])
  await machine.query(`INSERT INTO backupd_migrations (hash, created_at) VALUES ('9999_future', 9999999999999)`)
  for (const args of [['migrate'], ['source', 'list']]) {
    const result = await machine.cli([...args, '--json'])
    t.equal(result.code, 4)
    t.match(result.json<Failure>(), { error: { code: 'catalog.newer_schema', message: /9999_future/ } })
  }
  t.match((await machine.cli(['migrate', 'status'])).stdout, /9999_future +of a newer backupd/)
  const on = (url: string) => machine.cli(['migrate', '--json'], { env: { BACKUPD_DATABASE_URL: url } })
  t.match((await on(server.url('not_there'))).json<Failure>(), { error: { code: 'catalog.no_database' } })
  t.match((await on(server.url('postgres', 'postgres', 'guessed-wrong'))).json<Failure>(), { error: { code: 'catalog.auth' } })
  const unreachable = await on('postgres://u:guessed-wrong@127.0.0.1:1/d')
  t.match(unreachable.json<Failure>(), { error: { code: 'catalog.unreachable' } })
  t.equal(unreachable.code, 4)
  t.notMatch(machine.transcript(), /guessed-wrong/)
})

t.test('without a URL the catalog is embedded in the state directory', async (t) => {
  const machine = await machineOn(t, server)
  const env = { BACKUPD_DATABASE_URL: '' }
  t.match(await machine.cli(['migrate'], { env }), { code: 0, stdout: /^the catalog embedded in .*: applied 0000_shared_tables, 0001_backupd, 0002_operations, 0003_audit_guard/ })
  t.ok(existsSync(join(machine.stateDir, 'catalog')))
  t.match(await machine.cli(['source', 'list', '--json'], { env }), { code: 0, stdout: '[]\n' })
})

t.test('a state directory that cannot be made ends at once, and says which variable names it', async (t) => {
  const machine = await machineOn(t, server)
  const here = { BACKUPD_STATE_DIR: '/proc/none' }
  const hint = /BACKUPD_STATE_DIR/
  const cases = [
    { args: ['source', 'list'], env: { ...here, BACKUPD_DATABASE_URL: '' }, code: 'catalog.state_dir' },
    { args: ['key', 'generate'], env: here, code: 'key.file' },
    { args: ['source', 'add', 'shop', '--url', 'postgres://u:hidden-word@elsewhere/shop'], env: here, code: 'secret.key_file' },
    { args: ['audit', 'logs', 'key'], env: here, code: 'audit.key' },
  ]
  for (const { args, env, code } of cases) {
    const result = await machine.cli([...args, '--json'], { env, timeout: 30_000 })
    t.equal(result.code, 4, args.join(' '))
    t.match(result.json<Failure>(), { error: { code, hint } })
  }
  t.match(await machine.cli(['migrate', 'down', '--to', '1', '--export', '/proc/none'], { timeout: 30_000 }), { code: 4, stderr: /nothing was dropped/ })
  t.notMatch(machine.transcript(), 'hidden-word')
})
