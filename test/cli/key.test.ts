import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { machineOn, serverFor, withStorageAndKey, type Failure, type Machine } from './setup.js'

interface KeyRow { name: string; recipient: string; fingerprint: string; retired_at: string | null; at_hand: boolean; file?: string }

const server = await serverFor(t)

const privateKey = (file: string): string => {
  const found = readFileSync(file, 'utf8').split('\n').find((line) => line.startsWith('AGE-SECRET-KEY-1'))
  if (found === undefined) throw new Error(`no private key in ${file}`)
  return found
}

const keysOf = async ({ cli }: Machine, env: Record<string, string> = {}): Promise<KeyRow[]> => (await cli(['key', 'list', '--json'], { env })).json<KeyRow[]>()

t.test('a key is made: private half in a file for its owner only, public half in the catalog', async (t) => {
  const machine = await machineOn(t, server)
  const { cli, stateDir } = machine
  const file = join(stateDir, 'identities', 'default.txt')
  const made = await cli(['key', 'generate'])
  t.equal(made.code, 0, made.stderr)
  t.match(made.stdout, /Copy the private key to a safe place off this machine/)
  t.equal(statSync(file).mode & 0o777, 0o600)
  t.equal(statSync(join(stateDir, 'identities')).mode & 0o777, 0o700)
  const secret = privateKey(file)
  const [key] = await keysOf(machine)
  t.match(key, { name: 'default', recipient: /^age1[a-z0-9]{58}$/, fingerprint: /^[0-9a-f]{64}$/, retired_at: null, at_hand: true })
  t.match(made.stdout, key?.recipient)
  t.equal(execFileSync('age-keygen', ['-y', file], { encoding: 'utf8' }).trim(), key?.recipient, 'the age program agrees')

  const again = await cli(['key', 'generate', '--json'])
  t.equal(again.code, 2)
  t.match(again.json<Failure>(), { error: { code: 'key.exists' } })
  t.equal(privateKey(file), secret, 'nothing is overwritten')

  const elsewhere = machine.path('second.key')
  const second = await cli(['key', 'generate', '--name', 'second', '--out', elsewhere, '--json'])
  t.match(second.json<KeyRow>(), { name: 'second', file: elsewhere })
  t.strictSame((await keysOf(machine)).map(({ name, at_hand }) => [name, at_hand]), [['default', true], ['second', false]])
  t.strictSame((await keysOf(machine, { BACKUPD_IDENTITY_FILE: elsewhere })).map(({ name, at_hand }) => [name, at_hand]), [['default', false], ['second', true]])

  await cli(['audit', 'list', '--json'])
  t.notMatch(machine.transcript(), secret)
  t.notMatch(machine.transcript(), privateKey(elsewhere))
  t.notMatch(JSON.stringify(await machine.query('SELECT * FROM backup_keys')), 'AGE-SECRET')
})

t.test('a file that is there is never overwritten, and then no key is registered', async (t) => {
  const machine = await machineOn(t, server)
  const file = machine.path('precious')
  writeFileSync(file, 'precious')
  const result = await machine.cli(['key', 'generate', '--out', file, '--json'])
  t.equal(result.code, 1)
  t.match(result.json<Failure>(), { error: { code: 'key.file_exists' } })
  t.equal(readFileSync(file, 'utf8'), 'precious')
  t.strictSame(await keysOf(machine), [])
  t.match(await machine.cli(['key', 'generate', '--out', '/proc/none/key']), { code: 4 })
  t.match(await machine.cli(['key', 'generate', '--name', '../escape']), { code: 2 })
  t.match(await machine.cli(['key', 'generate', '--out', '']), { code: 2, stderr: /--out names no file/ })
  t.notOk(existsSync(machine.path('escape.txt')))
})

t.test('a public key is added, and a private one is refused without being shown', async (t) => {
  const machine = await machineOn(t, server)
  const text = execFileSync('age-keygen', [], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  const recipient = /public key: (\S+)/.exec(text)?.[1] ?? ''
  const secret = /AGE-SECRET-KEY-1\S+/.exec(text)?.[0] ?? ''
  const added = await machine.cli(['key', 'add', recipient, '--json'])
  t.equal(added.code, 0, added.stderr)
  t.match(added.json<KeyRow>(), { name: /^key-[0-9a-f]{8}$/, recipient })
  t.match(await machine.cli(['key', 'add', recipient, '--name', 'same']), { code: 2, stderr: /there already, under the name / })
  t.match(await machine.cli(['key', 'add', secret]), { code: 2, stderr: /This is a private key/ })
  t.match(await machine.cli(['key', 'add', 'age1nonsense']), { code: 2, stderr: /is not an age recipient/ })
  t.notMatch(machine.transcript(), secret)
  t.match(await keysOf(machine), [{ recipient, at_hand: false }])
})

t.test('the last key is not retired while a schedule encrypts', async (t) => {
  const machine = await machineOn(t, server, { BACKUPD_SOURCE_URL: server.url() })
  const { cli } = machine
  await withStorageAndKey(machine)
  await cli(['schedule', 'add', 'nightly', '--cron', '@daily', '--storage', 'disk'])
  const refused = await cli(['key', 'retire', 'default', '--json'])
  t.equal(refused.code, 1)
  t.match(refused.json<Failure>().error, { code: 'key.in_use', message: /schedule nightly/ })
  await cli(['key', 'generate', '--name', 'next'])
  t.equal((await cli(['key', 'retire', 'default'])).code, 0)
  t.match(await keysOf(machine), [{ name: 'default', retired_at: /^20/ }, { name: 'next', retired_at: null }])
  t.match(await cli(['key', 'retire', 'default']), { code: 2, stderr: /retired already/ })
  t.equal((await cli(['key', 'retire', 'nobody'])).code, 3)
  t.match(await cli(['key', 'remove', 'next']), { code: 1, stderr: /schedule nightly/ }, 'nor is it removed')
  await machine.query(`INSERT INTO backup_executions (backup_id, storage_backend_id, backup_type, status, triggered_by, started_at, included_components, encryption_key_hash)
    SELECT 'x', 1, 'full', 'completed', 'manual', now(), '[]', fingerprint FROM backup_keys WHERE name = 'default'`)
  t.match(await cli(['key', 'remove', 'default']), { code: 1, stderr: /1 execution/ }, 'nor one that a backup needs')
  await machine.query(`UPDATE backup_executions SET encryption_key_hash = 'of both', execution_metadata = json_build_object('manifest', (SELECT string_agg(recipient, ',') FROM backup_keys))`)
  t.match(await cli(['key', 'remove', 'default']), { code: 1, stderr: /1 execution/ }, 'together with another key too')
  await machine.query('DELETE FROM backup_executions')
  t.match((await cli(['key', 'remove', 'default', '--json'])).json(), { name: 'default' })
  t.match(await keysOf(machine), [{ name: 'next' }])
  t.equal((await cli(['key', 'remove', 'default'])).code, 3)
  const trail = (await cli(['audit', 'list', '--json'])).json<Record<string, unknown>[]>()
  t.match(trail.shift(), { event_type: 'key.removed', status: 'failure' })
  t.match(trail.shift(), { event_type: 'key.removed', status: 'success', resource_name: 'default' })
  for (const _ of [1, 2, 3]) t.match(trail.shift(), { event_type: 'key.removed', status: 'failure' })
  t.match(trail.map(({ event_type, status }) => [event_type, status]).slice(0, 4), [['key.retired', 'failure'], ['key.retired', 'failure'], ['key.retired', 'success'], ['key.generated', 'success']])
})

t.test('a key file that holds something else is named, and not shown', async (t) => {
  const machine = await machineOn(t, server)
  const file = machine.path('identity')
  writeFileSync(file, 'my-own-password\n', { mode: 0o600 })
  const result = await machine.cli(['key', 'list'], { env: { BACKUPD_IDENTITY_FILE: file } })
  t.match(result, { code: 4, stderr: /identity has something else than an age private key in line 1/ })
  t.notMatch(machine.transcript(), 'my-own-password')
})
