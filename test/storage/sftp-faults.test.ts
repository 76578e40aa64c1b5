import { join } from 'node:path'
import t from 'tap'
import { faultSuite } from '../conformance/storage-faults.js'
import { startSshd } from '../servers/sshd.js'

const server = await startSshd()
t.teardown(server.stop)

await faultSuite(t, {
  name: 'OpenSSH',
  type: 'sftp',
  port: server.port,
  config: (folder, port) => ({ host: server.host, port, username: server.username, host_key_sha256: server.fingerprint, password: server.password, remote_path: join(server.root, folder) }),
})
