import { chmodSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { silentLog } from '../../src/log.js'
import { openStorage } from '../../src/storage/registry.js'
import type { Storage } from '../../src/storage/storage.js'
import { bytes, collect, digestOf } from '../conformance/bytes.js'
import { freshFolder } from '../conformance/storage.js'
import { ftpProxyHost, startFtpProxy } from '../servers/ftp-proxy.js'
import { own } from '../servers/process.js'
import { startProftpd, type FtpServer } from '../servers/proftpd.js'
import { startVsftpd } from '../servers/vsftpd.js'

const signal = new AbortController().signal
const [secure, implicit, plain, strict, small, vsftpd] = await Promise.all([
  startProftpd({ tls: 'explicit' }), startProftpd({ tls: 'implicit' }), startProftpd(),
  // As it is without being told otherwise: no continued uploads, no file replaced.
  startProftpd({ restart: false, extra: ['AllowOverwrite off'] }),
  startProftpd({ extra: ['MaxStoreFileSize 1 Mb'] }), startVsftpd({ tls: 'explicit' }),
])
for (const server of [secure, implicit, plain, strict, small, vsftpd]) t.teardown(server.stop)

const open = (server: FtpServer, config: Record<string, unknown> = {}, retryFor = 0): Promise<Storage> =>
  openStorage('ftp', {
    host: server.host, port: server.port, username: server.username, password: server.password, tls: 'none', ca_path: server.ca, remote_path: freshFolder(), ...config,
  }, { log: silentLog(), parallelUploads: 2, retryFor })

const failsWith = async (t: Test, server: FtpServer, config: Record<string, unknown>, wanted: Record<string, unknown>): Promise<void> => {
  const storage = await open(server, config)
  t.match(await storage.stat('a', { signal }).then(() => undefined, (error: unknown) => error), wanted)
  await storage.close()
}

t.test('TLS that is not trusted, not there, or of the other kind', async (t) => {
  await failsWith(t, secure, { tls: 'explicit', ca_path: undefined }, { code: 'storage.tls', hint: /ca_path/ })
  await failsWith(t, implicit, { tls: 'implicit', ca_path: undefined }, { code: 'storage.tls', hint: /ca_path/ })
  await failsWith(t, plain, { tls: 'explicit' }, { code: 'storage.tls', hint: /none/ })
  await failsWith(t, plain, { tls: 'implicit' }, { code: 'storage.tls' })
  await failsWith(t, secure, { tls: 'none' }, { code: 'storage.tls', hint: /explicit/ })
  await failsWith(t, vsftpd, { tls: 'none' }, { code: 'storage.tls', hint: /explicit/ })
  await failsWith(t, secure, { tls: 'explicit', ca_path: '/nowhere' }, { code: 'storage.config_invalid' })
})

t.test('TLS is explicit unless told otherwise', async (t) => {
  const storage = await open(secure, { tls: undefined })
  t.equal(await storage.stat('a', { signal }), undefined)
  t.match(storage.location('a'), /^ftps:/)
  await storage.close()
})

t.test('wrong credentials, names and ports', async (t) => {
  for (const server of [plain, vsftpd]) await failsWith(t, server, { tls: server === vsftpd ? 'explicit' : 'none', password: 'hunter2-wrong' }, { code: 'storage.auth' })
  await failsWith(t, plain, { host: 'no-such-host.invalid' }, { code: 'storage.name_not_resolved' })
  await failsWith(t, plain, { port: 1 }, { code: 'storage.unreachable' })
})

for (const server of [plain, vsftpd]) {
  t.test(`a folder without the right to write is denied: ${server === plain ? 'ProFTPD' : 'vsftpd'}`, async (t) => {
    const folder = freshFolder()
    mkdirSync(join(server.root, folder, '.backupd-partial'), { recursive: true })
    for (const path of [join(server.root, folder, '.backupd-partial'), join(server.root, folder)]) {
      own(path)
      chmodSync(path, 0o555)
    }
    const storage = await open(server, { remote_path: folder, tls: server === plain ? 'none' : 'explicit' })
    await t.rejects(storage.write('a', bytes(1, 1_000_000), { signal }), { code: 'storage.denied' })
    const steps = await storage.probe({ signal })
    t.strictSame(steps.map(({ name, outcome }) => [name, outcome]), [['connect', 'ok'], ['write', 'denied'], ['read', 'skipped'], ['list', 'ok'], ['remove', 'skipped']], JSON.stringify(steps))
    await storage.close()
  })
}

t.test('a server that lets nothing be continued or replaced can be used all the same', async (t) => {
  const storage = await open(strict)
  for (const size of [3_000_000, 0, 10]) {
    await storage.write('same', bytes(size, size), { signal })
    t.strictSame(await digestOf(storage.read('same', { signal })), await digestOf(bytes(size, size)))
  }
  await storage.close()
})

t.test('a broken connection to a server that lets nothing be continued is an honest failure that says what to change', async (t) => {
  const proxy = await startFtpProxy(strict)
  const storage = await open(strict, { host: ftpProxyHost, port: proxy.port }, 10_000)
  proxy.set({ cut: { direction: 'up', after: 5_000_000, how: 'reset', times: 1 } })
  const error = await storage.write('a', bytes(1, 20_000_000), { signal }).then(() => undefined, (error: unknown) => error)
  t.match(error, { code: 'storage.unsupported', hint: /AllowStoreRestart/ })
  t.equal(await storage.stat('a', { signal }), undefined)
  await storage.close()
  await proxy.stop()
})

t.test('a limit of the server is met in the middle of an upload', async (t) => {
  const storage = await open(small)
  const error = await storage.write('a', bytes(1, 20_000_000), { signal }).then(() => undefined, (error: unknown) => error)
  t.match(error, { code: 'storage.disk_full' })
  t.equal(await storage.stat('a', { signal }), undefined)
  await storage.close()
})

t.test('fifty small reads share connections for commands', async (t) => {
  const folder = freshFolder()
  const direct = await open(plain, { remote_path: folder })
  await direct.write('a', bytes(1, 1000), { signal })
  const proxy = await startFtpProxy(plain)
  const storage = await open(plain, { remote_path: folder, host: ftpProxyHost, port: proxy.port })
  for (let round = 0; round < 50; round += 1) t.equal((await collect(storage.read('a', { signal }))).length, 1000)
  // One for the data of each, and now and then another one for commands, when the reply to the read before is still on its way.
  t.ok(proxy.connections() <= 75, `${proxy.connections()} connections`)
  await Promise.all([direct.close(), storage.close()])
  await proxy.stop()
})

t.test('the rights of docs/storage.md are enough', async (t) => {
  const documented = /```apache\n([\s\S]*?)```/.exec(readFileSync(new URL('../../docs/storage.md', import.meta.url), 'utf8'))?.[1] ?? ''
  t.match(documented, 'DenyAll')
  const server = await startProftpd({ tls: 'explicit', extra: documented.replace('AllowUser backup\n', 'AllowUser backupd\n').replace('/srv/backups', '/').split('\n') })
  t.teardown(server.stop)
  const storage = await open(server, { tls: 'explicit' })
  for (const seed of [1, 2]) await storage.write('deep/a', bytes(seed, 3_000_000), { signal })
  t.strictSame(await digestOf(storage.read('deep/a', { offset: 1_000_000, signal })), { ...(await digestOf(storage.read('deep/a', { offset: 1_000_000, signal }))), size: 2_000_000 })
  const steps = await storage.probe({ signal })
  t.strictSame(steps.map(({ outcome }) => outcome), ['ok', 'ok', 'ok', 'ok', 'ok'], JSON.stringify(steps))
  t.strictSame(await storage.sweep({ signal, olderThan: new Date() }), { removed: [], remaining: [] })
  await storage.close()
})
