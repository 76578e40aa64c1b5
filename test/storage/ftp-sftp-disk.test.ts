import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { silentLog } from '../../src/log.js'
import { openStorage } from '../../src/storage/registry.js'
import { bytes } from '../conformance/bytes.js'
import { own } from '../servers/process.js'
import { startProftpd } from '../servers/proftpd.js'
import { startSshd } from '../servers/sshd.js'
import { startVsftpd } from '../servers/vsftpd.js'

const signal = new AbortController().signal
const [sshd, proftpd, vsftpd] = await Promise.all([startSshd(), startProftpd({ tls: 'explicit' }), startVsftpd({ tls: 'explicit' })])
const subjects = [
  { name: 'OpenSSH', type: 'sftp', server: sshd, config: { host_key_sha256: sshd.fingerprint } },
  { name: 'ProFTPD', type: 'ftp', server: proftpd, config: { ca_path: proftpd.ca } },
  { name: 'vsftpd', type: 'ftp', server: vsftpd, config: { ca_path: vsftpd.ca } },
]

for (const { name, type, server, config } of subjects) {
  t.test(`${name}: a disk that is full at the far end`, async (t) => {
    const point = join(server.root, 'small')
    mkdirSync(point)
    own(point)
    // A real small file system, where the test may mount one.
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m,mode=0777', 'tmpfs', point])
    t.teardown(async () => {
      execFileSync('umount', ['--lazy', point])
      await server.stop()
    })
    const { host, port, username, password } = server
    const storage = await openStorage(type, { host, port, username, password, remote_path: point, ...config }, { log: silentLog(), parallelUploads: 2, retryFor: 3_000 })
    await storage.write('small', bytes(1, 1_000_000), { signal })
    const error = await storage.write('folder/large', bytes(1, 10_000_000), { signal }).then(() => undefined, (error: unknown) => error)
    t.match(error, { code: 'storage.disk_full', hint: /Free/ })
    t.equal(await storage.stat('folder/large', { signal }), undefined)
    t.strictSame(readdirSync(join(point, '.backupd-partial')), [], 'what was written is removed')
    t.strictSame(await storage.write('fits', bytes(1, 1_000_000), { signal }), { size: 1_000_000 })
    await storage.close()
  })
}
