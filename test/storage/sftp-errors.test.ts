import { chmodSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { silentLog } from '../../src/log.js'
import { openStorage } from '../../src/storage/registry.js'
import { bytes, collect } from '../conformance/bytes.js'
import { freshFolder } from '../conformance/storage.js'
import { own } from '../servers/process.js'
import { startProftpd } from '../servers/proftpd.js'
import { startSshd } from '../servers/sshd.js'
import { tempDir } from '../support/temp.js'

const signal = new AbortController().signal
const server = await startSshd()
t.teardown(server.stop)
const base = { host: server.host, port: server.port, username: server.username, password: server.password, host_key_sha256: server.fingerprint }
const open = (config: Record<string, unknown>) => openStorage('sftp', { remote_path: join(server.root, freshFolder()), ...config }, { log: silentLog(), parallelUploads: 2, retryFor: 0 })
const agentSocket = process.env['SSH_AUTH_SOCK']
t.teardown(() => {
  if (agentSocket === undefined) delete process.env['SSH_AUTH_SOCK']
  else process.env['SSH_AUTH_SOCK'] = agentSocket
})

const failsWith = async (t: Test, config: Record<string, unknown>, wanted: Record<string, unknown>): Promise<void> => {
  const storage = await open(config)
  t.match(await storage.stat('a', { signal }).then(() => undefined, (error: unknown) => error), wanted)
  await storage.close()
}

t.test('an unknown host is refused, with the fingerprint to add', async (t) => {
  await failsWith(t, { ...base, host_key_sha256: undefined }, { code: 'storage.host_key_unknown', kind: 'configuration', hint: new RegExp(`host_key_sha256=${server.fingerprint.replace(/[+]/g, '\\+')}`) })
})

t.test('a changed host key is refused', async (t) => {
  await failsWith(t, { ...base, host_key_sha256: `SHA256:${'A'.repeat(43)}` }, { code: 'storage.host_key', details: { fingerprint: server.fingerprint } })
})

t.test('one of several fingerprints is enough, however it is written', async (t) => {
  const storage = await open({ ...base, host_key_sha256: `SHA256:${'A'.repeat(43)}, ${server.fingerprint.replace('SHA256:', '')}=` })
  t.equal(await storage.stat('a', { signal }), undefined)
  await storage.close()
})

t.test('wrong credentials', async (t) => {
  await failsWith(t, { ...base, password: 'wrong' }, { code: 'storage.auth' })
  await failsWith(t, { ...base, username: 'nobody-here' }, { code: 'storage.auth' })
  await failsWith(t, { ...base, password: undefined, private_key: readFileSync(server.privateKey, 'utf8') }, { code: 'storage.auth', hint: /passphrase/ })
  await failsWith(t, { ...base, password: undefined, private_key: readFileSync(server.privateKey, 'utf8'), passphrase: 'wrong' }, { code: 'storage.auth', hint: /passphrase/ })
  await failsWith(t, { ...base, password: undefined, private_key_path: '/nowhere/key' }, { code: 'storage.config_invalid' })
  delete process.env['SSH_AUTH_SOCK']
  await failsWith(t, { ...base, password: undefined }, { code: 'storage.config_invalid' })
})

t.test('a key from a file', async (t) => {
  const storage = await open({ ...base, password: undefined, private_key_path: server.plainKey })
  t.strictSame(await storage.write('a', bytes(1, 10), { signal }), { size: 10 })
  await storage.close()
})

t.test('an agent, when there is nothing else', async (t) => {
  const socket = join(tempDir(t, 'agent'), 'socket')
  const agent = spawn('ssh-agent', ['-D', '-a', socket], { stdio: ['ignore', 'pipe', 'ignore'] })
  t.teardown(async () => {
    const exited = once(agent, 'exit')
    agent.kill()
    await exited
  })
  await once(agent.stdout, 'data')
  execFileSync('ssh-add', ['-q', server.plainKey], { env: { ...process.env, SSH_AUTH_SOCK: socket }, stdio: 'pipe' })
  process.env['SSH_AUTH_SOCK'] = socket
  const storage = await open({ ...base, password: undefined })
  t.strictSame(await storage.write('a', bytes(1, 10), { signal }), { size: 10 })
  await storage.close()
})

t.test('a folder without the right to write is denied, and the probe says so', async (t) => {
  const folder = join(server.root, freshFolder())
  mkdirSync(folder)
  own(folder)
  chmodSync(folder, 0o555)
  const storage = await open({ ...base, remote_path: folder })
  await t.rejects(storage.write('a', bytes(1, 10), { signal }), { code: 'storage.denied' })
  const steps = await storage.probe({ signal })
  t.strictSame(steps.map(({ name, outcome }) => [name, outcome]), [['connect', 'ok'], ['write', 'denied'], ['read', 'skipped'], ['list', 'ok'], ['remove', 'skipped']])
  await storage.close()
})

t.test('a file without the right to read is denied', async (t) => {
  const storage = await open({ ...base, remote_path: server.root })
  writeFileSync(join(server.root, 'closed'), 'x', { mode: 0o000 })
  own(join(server.root, 'closed'))
  await t.rejects(collect(storage.read('closed', { signal })), { code: 'storage.denied' })
  await storage.close()
})

t.test('a name that does not exist, a port where nobody listens', async (t) => {
  await failsWith(t, { ...base, host: 'no-such-host.invalid' }, { code: 'storage.name_not_resolved' })
  await failsWith(t, { ...base, port: 1 }, { code: 'storage.unreachable' })
})

t.test('the secrets of the configuration stay out of errors', async (t) => {
  const storage = await open({ ...base, password: 'hunter2-hunter2' })
  const error = await storage.stat('a', { signal }).then(() => undefined, (error: unknown) => error)
  t.notMatch(JSON.stringify([error, String(error), (error as Error).stack]), /hunter2/)
  await storage.close()
})

t.test('another server: mod_sftp of ProFTPD', async (t) => {
  const other = await startProftpd({ sftp: true })
  t.teardown(other.stop)
  const config = { host: other.host, port: other.port, username: other.username, password: other.password, remote_path: join(other.root, 'backups') }
  const unknown = await open(config)
  const refused = await unknown.stat('a', { signal }).then(() => undefined, (error: unknown) => error as { details: { fingerprint: string } })
  const storage = await open({ ...config, host_key_sha256: refused?.details.fingerprint })
  for (const size of [0, 1, 3_000_000]) {
    await storage.write('deep/a', bytes(size, size), { signal })
    t.ok((await collect(storage.read('deep/a', { signal }))).equals(await collect(bytes(size, size))), `${size} bytes`)
  }
  const steps = await storage.probe({ signal })
  t.strictSame(steps.map(({ outcome }) => outcome), ['ok', 'ok', 'ok', 'ok', 'ok'], JSON.stringify(steps))
  await storage.remove('deep/a', { signal })
  await storage.remove('deep/a', { signal })
  t.strictSame(readdirSync(join(other.root, 'backups')), ['.backupd-partial'], 'empty folders go')
  await Promise.all([unknown.close(), storage.close()])
})
