import t from 'tap'
import { faultSuite } from '../conformance/storage-faults.js'
import { ftpProxyHost, startFtpProxy } from '../servers/ftp-proxy.js'
import { startProftpd } from '../servers/proftpd.js'

const server = await startProftpd({ tls: 'explicit' })
t.teardown(server.stop)

await faultSuite(t, {
  name: 'ProFTPD, explicit TLS',
  type: 'ftp',
  // More than is kept of an upload.
  size: 40_000_000,
  rounds: 8,
  port: server.port,
  startProxy: (seed) => startFtpProxy(server, seed),
  config: (folder, port) => ({
    host: port === server.port ? server.host : ftpProxyHost, port, username: server.username, password: server.password, tls: 'explicit', ca_path: server.ca, remote_path: folder,
  }),
})
