import t from 'tap'
import { storageSuite } from '../conformance/storage.js'
import { startVsftpd } from '../servers/vsftpd.js'

const servers = await Promise.all((['explicit', 'implicit', 'none'] as const).map(async (tls) => ({ tls, ...(await startVsftpd({ tls })) })))
for (const server of servers) t.teardown(server.stop)

for (const { tls, host, port, username, password, ca } of servers) {
  await storageSuite(t, {
    name: `vsftpd, TLS ${tls}`,
    type: 'ftp',
    chunk: 1024 * 1024,
    ...(tls === 'explicit' ? {} : { many: 60 }),
    // From where the login lands, which a leading slash would not be.
    config: (folder) => ({ host, port, username, password, tls, ca_path: ca, remote_path: folder.replace(/^\//, '') }),
  })
}
