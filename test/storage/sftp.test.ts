import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { storageSuite } from '../conformance/storage.js'
import { startSshd } from '../servers/sshd.js'

const server = await startSshd()
t.teardown(server.stop)
const common = { host: server.host, port: server.port, username: server.username, host_key_sha256: server.fingerprint }

await storageSuite(t, {
  name: 'OpenSSH, password',
  type: 'sftp',
  chunk: 1024 * 1024,
  config: (folder) => ({ ...common, password: server.password, remote_path: join(server.root, folder) }),
})

await storageSuite(t, {
  name: 'OpenSSH, key with a passphrase, from the home folder',
  type: 'sftp',
  chunk: 1024 * 1024,
  many: 60,
  config: (folder) => ({ ...common, private_key: readFileSync(server.privateKey, 'utf8'), passphrase: server.passphrase, remote_path: folder.replace(/^\//, '') }),
})
