import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { freePort } from './process.js'

const run = promisify(execFile)

/** Real S3: a Ceph RADOS Gateway on a cluster of one monitor and one store in memory. Debian: ceph-mon, ceph-osd, ceph-common, radosgw. */
export interface S3Server {
  port: number
  endpoint: string
  accessKey: string
  secretKey: string
  /** Adds a user without any right; gives their secret key. */
  addUser(name: string): Promise<{ accessKey: string; secretKey: string }>
  stop(): Promise<void>
}

const settings = (dir: string, fsid: string, mon: number, gateway: string): string => `
[global]
fsid = ${fsid}
mon host = [v2:127.0.0.1:${mon}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
keyring = ${dir}/keyring
mon data = ${dir}/mon
osd data = ${dir}/osd
run dir = ${dir}
admin socket = ${dir}/$name.asok
log file = ${dir}/$name.log
mon cluster log file = ${dir}/cluster.log
pid file =
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
mon data avail warn = 1
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
osd max object name len = 2048
memstore device bytes = 12884901888
rgw frontends = beast ${gateway}
rgw enable usage log = false
rgw enable ops log = false
rgw run sync thread = false
rgw dynamic resharding = false
rgw thread pool size = 64
rgw cache lru size = 100
`

const retrying = async <T>(what: string, seconds: number, work: () => Promise<T>): Promise<T> => {
  const end = Date.now() + seconds * 1000
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (Date.now() > end) throw new Error(`${what} did not come up in ${seconds} s`, { cause: error })
      await delay(200)
    }
  }
}

/** Starts the cluster in a folder of its own; fails with what its programs said when it does not come up. */
export const startRgw = async ({ tls }: { tls?: { cert: string; key: string } } = {}): Promise<S3Server> => {
  // Paths of Unix sockets are short, so not in a long TMPDIR.
  const dir = await mkdtemp('/tmp/bd-rgw-')
  const children: ChildProcess[] = []
  const stop = async (): Promise<void> => {
    for (const child of children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const gone = once(child, 'exit')
      // Nothing in it is to be kept.
      child.kill('SIGKILL')
      await gone
    }
    await rm(dir, { recursive: true, force: true })
  }
  const start = (program: string, ...args: string[]): void => {
    // Dies with us, even if we are killed.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', program, '-c', join(dir, 'ceph.conf'), '-f', ...args], { stdio: 'ignore' })
    child.on('error', () => undefined)
    children.push(child)
  }
  const ceph = async (program: string, ...args: string[]): Promise<string> => (await run(program, ['-c', join(dir, 'ceph.conf'), ...args], { timeout: 60_000 })).stdout
  try {
    const [mon, port] = [await freePort(), await freePort()]
    const [fsid, osd] = [randomUUID(), randomUUID()]
    const [accessKey, secretKey] = ['BACKUPDTESTKEY', randomUUID()]
    if (tls !== undefined) await writeFile(join(dir, 'rgw.pem'), `${tls.key}\n${tls.cert}`)
    await writeFile(join(dir, 'ceph.conf'), settings(dir, fsid, mon, tls === undefined ? `endpoint=127.0.0.1:${port}` : `ssl_endpoint=127.0.0.1:${port} ssl_certificate=${join(dir, 'rgw.pem')}`))
    await mkdir(join(dir, 'mon'))
    await mkdir(join(dir, 'osd'))
    const keyring = join(dir, 'keyring')
    await run('ceph-authtool', [keyring, '--create-keyring', '--gen-key', '-n', 'mon.', '--cap', 'mon', 'allow *'])
    await run('ceph-authtool', [keyring, '--gen-key', '-n', 'client.admin', '--cap', 'mon', 'allow *', '--cap', 'osd', 'allow *'])
    await run('ceph-authtool', [keyring, '--gen-key', '-n', 'osd.0', '--cap', 'mon', 'allow profile osd', '--cap', 'osd', 'allow *'])
    await run('monmaptool', ['--create', '--addv', 'a', `[v2:127.0.0.1:${mon}]`, '--fsid', fsid, join(dir, 'monmap')])
    await ceph('ceph-mon', '--mkfs', '-i', 'a', '--monmap', join(dir, 'monmap'), '--keyring', keyring)
    start('ceph-mon', '-i', 'a')
    await retrying('ceph-mon', 30, () => ceph('ceph', '--connect-timeout', '5', 'osd', 'new', osd))
    await ceph('ceph-osd', '--mkfs', '-i', '0', '--osd-uuid', osd)
    start('ceph-osd', '-i', '0')
    await ceph('radosgw-admin', 'user', 'create', '--uid=backupd', '--display-name=backupd', `--access-key=${accessKey}`, `--secret-key=${secretKey}`)
    start('radosgw', '-n', 'client.admin')
    const endpoint = `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`
    await retrying('radosgw', 60, async () => {
      const socket = connect(port, '127.0.0.1')
      await once(socket, 'connect')
      socket.destroy()
    })
    const addUser = async (name: string): Promise<{ accessKey: string; secretKey: string }> => {
      const keys = { accessKey: `KEY${name.toUpperCase()}`, secretKey: randomUUID() }
      await ceph('radosgw-admin', 'user', 'create', `--uid=${name}`, `--display-name=${name}`, `--access-key=${keys.accessKey}`, `--secret-key=${keys.secretKey}`)
      return keys
    }
    return { port, endpoint, accessKey, secretKey, addUser, stop }
  } catch (error) {
    const logs = await Promise.all(['mon.a.log', 'osd.0.log', 'client.admin.log'].map(async (name) => `${name}: ${(await readFile(join(dir, name), 'utf8').catch(() => 'none')).slice(-1000)}`))
    await stop()
    throw new Error(`the Ceph RADOS Gateway cannot be started (Debian: apt-get install ceph-mon ceph-osd ceph-common radosgw): ${String(error)}\n${logs.join('\n')}`, { cause: error })
  }
}
