import { chmodSync, existsSync, mkdirSync, readdirSync } from 'node:fs'
import t from 'tap'
import { freePort } from '../servers/process.js'
import { unprivileged } from '../support/unprivileged.js'
import { machineOn, serverFor, withStorageAndKey, type Failure } from './setup.js'

interface StorageRow { name: string; backend_type: string; config_data: Record<string, unknown>; is_active: boolean; is_healthy: boolean; health_check_message: string | null }

const server = await serverFor(t)
const secret = 'Kq7-the-secret-access-key'

t.test('a local storage is added, probed, switched off and on, and removed', async (t) => {
  const { cli, path } = await machineOn(t, server)
  const added = await cli(['storage', 'add', 'disk', '--type', 'local', '--set', `base_path=${path('repository')}`, '--set', 'require_mount=no', '--description', 'd', '--json'])
  t.equal(added.code, 0, added.stderr)
  t.match(added.json<StorageRow>(), { name: 'disk', backend_type: 'local', is_active: true, config_data: { base_path: path('repository'), require_mount: false } })

  const tested = await cli(['storage', 'test', 'disk', '--json'])
  t.equal(tested.code, 0, tested.stderr)
  t.match(tested.json(), { name: 'disk', healthy: true, steps: ['connect', 'write', 'read', 'list', 'remove'].map((name) => ({ name, outcome: 'ok' })) })
  t.match(tested.json(), { set_up: 'full', least_rights: /0700/, concerns: [] })
  t.match((await cli(['storage', 'test', 'disk'])).stdout, /^STEP +OUTCOME +MESSAGE\nconnect +ok [^]*\nset-up: full: .*\nleast rights: a folder .*docs\/storage\.md/)
  t.strictSame(readdirSync(path('repository')).filter((name) => !name.startsWith('.')), [], 'nothing is left of the probe')
  const [row] = (await cli(['storage', 'list', '--json'])).json<StorageRow[]>()
  t.match(row, { is_healthy: true, health_check_message: /ok$/, last_health_check: /^20/ })

  t.match((await cli(['storage', 'disable', 'disk', '--json'])).json(), { is_active: false })
  t.match((await cli(['storage', 'list'])).stdout, /disk +local +disabled/)
  t.match((await cli(['storage', 'enable', 'disk', '--json'])).json(), { is_active: true })
  t.equal((await cli(['storage', 'remove', 'disk'])).code, 0)
  t.strictSame((await cli(['storage', 'list', '--json'])).json(), [])
  t.ok(existsSync(path('repository')), 'what is in it stays')
})

t.test('a test tells what it sees, and does not wait for better times as a backup does', async (t) => {
  const { cli } = await machineOn(t, server)
  const keys = ['host=127.0.0.1', `port=${await freePort()}`, 'username=backup', 'password=x', 'host_key_sha256=SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', 'remote_path=/backups']
  t.equal((await cli(['storage', 'add', 'away', '--type', 'sftp', ...keys.flatMap((key) => ['--set', key])])).code, 0)
  const begun = Date.now()
  t.match(await cli(['storage', 'test', 'away', '--json']), { code: 1, stdout: /"storage.unreachable"/ })
  t.ok(Date.now() - begun < 60_000, 'within a minute, where backups try again for a quarter of an hour')
})

t.test('secrets are sealed, references stay references, and neither is shown', async (t) => {
  const machine = await machineOn(t, server)
  const { cli } = machine
  const keys = ['bucket_name=b', 'region=eu-central-1', 'access_key_id=AKIA', `secret_access_key=${secret}`, 'force_path_style=true', 'object_lock_days=3']
  const added = await cli(['storage', 'add', 'cloud', '--type', 'aws_s3', ...keys.flatMap((key) => ['--set', key]), '--json'])
  t.equal(added.code, 0, added.stderr)
  t.match(added.json<StorageRow>().config_data, { bucket_name: 'b', secret_access_key: '[secret]', force_path_style: true, object_lock_days: 3 })
  const [stored] = await machine.query('SELECT config_data::text AS config FROM storage_backend_configs')
  t.match(stored, { config: /"secret_access_key": ?\{"\$sealed": ?"v1:/ })

  const referring = ['storage', 'add', 'later', '--type', 'aws_s3', '--set', 'bucket_name=b', '--set', 'access_key_id=AKIA', '--set', 'secret_access_key={"$env": "S3_SECRET"}', '--json']
  const unset = await cli(referring)
  t.equal(unset.code, 0, unset.stderr)
  t.match(unset.stderr, /warning: .*S3_SECRET.*unchecked/)
  t.match(unset.json<StorageRow>().config_data, { secret_access_key: { $env: 'S3_SECRET' } })
  t.match(await cli(['storage', 'test', 'later', '--json']), { code: 4 })
  const [, later] = (await cli(['storage', 'list', '--json'])).json<StorageRow[]>()
  t.match(later, { is_healthy: false, health_check_message: /S3_SECRET/ })

  await cli(['audit', 'list', '--json'])
  await cli(['storage', 'list'])
  t.notMatch(machine.transcript(), secret)
})

t.test('wrong settings are refused with what is right', async (t) => {
  const machine = await machineOn(t, server)
  const { cli } = machine
  const add = (...args: string[]) => cli(['storage', 'add', 'x', ...args])
  t.match(await add('--type', 'tape'), { code: 2, stderr: /Allowed choices are local/ })
  t.match(await add(), { code: 2, stderr: /--type/ })
  t.match(await add('--type', 'local'), { code: 4, stderr: /base_path is missing/ })
  t.match(await add('--type', 'local', '--set', 'base_path=relative'), { code: 4, stderr: /absolute path/ })
  t.match(await add('--type', 'local', '--set', 'base_path=/x', '--set', 'colour=red'), { code: 4, stderr: /colour: not a key of a storage of type local\n.*base_path/ })
  t.match(await add('--type', 'local', '--set', 'base_path=/x', '--set', 'base_path=/y'), { code: 4, stderr: /set twice/ })
  t.match(await add('--type', 'aws_s3', '--set', secret), { code: 4, stderr: /--set wants key=value/ })
  t.match(await add('--type', 'aws_s3', '--set', `secret_access_key=${secret}`, '--set', 'object_lock_days=many'), { code: 4, stderr: /object_lock_days/ })
  t.notMatch(machine.transcript(), secret)
  t.strictSame((await cli(['storage', 'list', '--json'])).json(), [])
  await cli(['storage', 'add', 'twice', '--type', 'local', '--set', 'base_path=/x'])
  t.match((await cli(['storage', 'add', 'twice', '--type', 'local', '--set', 'base_path=/x', '--json'])).json<Failure>(), { error: { code: 'storage.exists' } })
  t.equal((await cli(['storage', 'test', 'nowhere'])).code, 3)
  t.equal((await cli(['storage', 'enable', 'nowhere'])).code, 3)
})

t.test('what to type next is quoted for a shell', async (t) => {
  const { cli, path } = await machineOn(t, server)
  t.match(await cli(['storage', 'add', "it's here", '--type', 'local', '--set', `base_path=${path('a')}`]), { code: 0, stdout: `"backupd storage test 'it'\\''s here'" tries it` })
  t.match(await cli(['source', 'test', 'no such']), { code: 3, stderr: `"backupd source add 'no such' --url URL"` })
})

t.test('a storage that cannot be written to is not healthy', async (t) => {
  const machine = await machineOn(t, server)
  const { cli } = machine
  // Root may write anywhere, so the place is a file instead of a folder.
  const place = unprivileged() === undefined ? machine.path('locked') : '/proc/version'
  if (unprivileged() === undefined) {
    mkdirSync(place)
    chmodSync(place, 0o500)
  }
  await cli(['storage', 'add', 'disk', '--type', 'local', '--set', `base_path=${place}`])
  const result = await cli(['storage', 'test', 'disk', '--json'])
  t.equal(result.code, 1)
  t.match(result.json(), { healthy: false })
  t.match((await cli(['storage', 'list'])).stdout, /not healthy/)
})

t.test('a storage in use is not removed', async (t) => {
  const machine = await machineOn(t, server, { BACKUPD_SOURCE_URL: server.url() })
  const { cli } = machine
  await withStorageAndKey(machine)
  await cli(['storage', 'add', 'second', '--type', 'local', '--set', `base_path=${machine.path('second')}`])
  await cli(['schedule', 'add', 'nightly', '--cron', '@daily', '--storage', 'disk', '--copy-to', 'second'])
  for (const name of ['disk', 'second']) {
    const refused = await cli(['storage', 'remove', name, '--json'])
    t.equal(refused.code, 1)
    t.match(refused.json<Failure>().error, { code: 'storage.in_use', message: /schedule nightly/ })
  }
  t.match(await cli(['storage', 'disable', 'disk']), { code: 0, stdout: /warning: backups of nightly will fail/ })
  t.match(await cli(['schedule', 'add', 'other', '--cron', '@daily', '--storage', 'disk']), { code: 4, stderr: /is disabled/ })
})
