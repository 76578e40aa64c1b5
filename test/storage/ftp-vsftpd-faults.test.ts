import t from 'tap'
import { faultSuite } from '../conformance/storage-faults.js'
import { ftpProxyHost, startFtpProxy } from '../servers/ftp-proxy.js'
import { startVsftpd } from '../servers/vsftpd.js'

// A file is locked until vsftpd gives up the connection that was writing it: by default after 300 s, which the default time for retries outlasts.
const server = await startVsftpd({ tls: 'explicit', extra: ['data_connection_timeout=4'] })
t.teardown(server.stop)

await faultSuite(t, {
  name: 'vsftpd, explicit TLS',
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
