import { join } from 'node:path'
import t from 'tap'
import { storageSuite } from '../conformance/storage.js'
import { startProftpd } from '../servers/proftpd.js'

const servers = await Promise.all((['explicit', 'implicit', 'none'] as const).map(async (tls) => ({ tls, ...(await startProftpd({ tls })) })))
for (const server of servers) t.teardown(server.stop)

for (const { tls, host, port, username, password, root, ca } of servers) {
  await storageSuite(t, {
    name: `ProFTPD, TLS ${tls}`,
    type: 'ftp',
    chunk: 1024 * 1024,
    ...(tls === 'explicit' ? {} : { many: 60 }),
    config: (folder) => ({ host, port, username, password, tls, ca_path: ca, remote_path: join(root, folder) }),
  })
}
