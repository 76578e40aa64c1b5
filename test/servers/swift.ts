import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { freePort } from './process.js'
import type { S3Server } from './rgw.js'

const run = promisify(execFile)

// Swift reads its one secret from a fixed place outside of any configuration; this names another place.
const launcher = `
import sys
from swift.common import utils
utils.SWIFT_CONF_FILE = sys.argv[1]
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(sys.argv[2], sys.argv[3], default_port=int(sys.argv[4])))
`

const storeSettings = (dir: string, name: string, port: number): string => `
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${port}
workers = 0
user =
swift_dir = ${dir}
devices = ${dir}/devices
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
recon_cache_path = ${dir}
log_address = ${dir}/none
[pipeline:main]
pipeline = ${name}-server
[app:${name}-server]
use = egg:swift#${name}
`

// The cache is at a port where nobody listens; it is required, but does without.
const proxySettings = (dir: string, port: number, secretKey: string): string => `
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${port}
workers = 0
user =
swift_dir = ${dir}
log_address = ${dir}/none
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
max_upload_part_num = 10000
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = ${secretKey} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
[filter:dlo]
use = egg:swift#dlo
`

/** Another real S3: the S3 interface of OpenStack Swift, on a folder. Debian: swift-proxy, swift-account, swift-container, swift-object. */
export const startSwift = async (): Promise<Omit<S3Server, 'addUser'>> => {
  const dir = await mkdtemp(join(tmpdir(), 'backupd-swift-'))
  const children: ChildProcess[] = []
  let output = ''
  const stop = async (): Promise<void> => {
    for (const child of children) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const gone = once(child, 'exit')
      child.kill('SIGKILL')
      await gone
    }
    await rm(dir, { recursive: true, force: true })
  }
  const start = (name: string, port: number): void => {
    // Debian's own Python, which has Swift's packages, whatever else PATH has; it dies with us.
    const args = ['--pdeathsig', 'KILL', '/usr/bin/python3', join(dir, 'run.py'), join(dir, 'swift.conf'), join(dir, `${name}.conf`), `${name}-server`, String(port)]
    const child = spawn('setpriv', args, { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text: Buffer) => { output = (output + text.toString()).slice(-2000) })
    child.on('error', () => undefined)
    children.push(child)
  }
  try {
    await mkdir(join(dir, 'devices', 'd1'), { recursive: true })
    await writeFile(join(dir, 'run.py'), launcher)
    await writeFile(join(dir, 'swift.conf'), '[swift-hash]\nswift_hash_path_suffix = backupd\n[storage-policy:0]\nname = default\ndefault = yes\n')
    for (const name of ['account', 'container', 'object']) {
      const port = await freePort()
      const ring = async (...args: string[]): Promise<unknown> => run('swift-ring-builder', [join(dir, `${name}.builder`), ...args])
      await ring('create', '4', '1', '0')
      await ring('add', `r1z1-127.0.0.1:${port}/d1`, '1')
      await ring('rebalance')
      await writeFile(join(dir, `${name}.conf`), storeSettings(dir, name, port))
      start(name, port)
    }
    const port = await freePort()
    const secretKey = 'swift-test-secret'
    await writeFile(join(dir, 'proxy.conf'), proxySettings(dir, port, secretKey))
    start('proxy', port)
    for (const end = Date.now() + 60_000; ; await delay(200)) {
      const socket = connect(port, '127.0.0.1')
      const listening = await once(socket, 'connect').then(() => true, () => false)
      socket.destroy()
      if (listening) break
      if (Date.now() > end || children.some(({ exitCode }) => exitCode !== null)) throw new Error('it does not listen')
    }
    return { port, endpoint: `http://127.0.0.1:${port}`, accessKey: 'test:tester', secretKey, stop }
  } catch (error) {
    await stop()
    throw new Error(`OpenStack Swift cannot be started (Debian: apt-get install swift-proxy swift-account swift-container swift-object): ${String(error)}\n${output}`, { cause: error })
  }
}
