import { ContainerClient, StorageSharedKeyCredential } from '@azure/storage-blob'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { silentLog } from '../../src/log.js'
import { Secret } from '../../src/secret.js'
import { backendOf, openStorage } from '../../src/storage/registry.js'
import type { ByteSource } from '../../src/storage/storage.js'
import { startAzurite } from '../servers/azurite.js'
import { makeBucket } from '../servers/buckets.js'
import { startGcsDouble } from '../servers/gcs-double.js'
import { startProftpd, type FtpServer } from '../servers/proftpd.js'
import { startRgw } from '../servers/rgw.js'
import { startSshd } from '../servers/sshd.js'
import { startVsftpd } from '../servers/vsftpd.js'
import { databaseContent } from '../support/content.js'
import { createWorld, type ShownExecution } from './world.js'

interface Service {
  type: string
  /** Of `config_data`, as typed. */
  config: Record<string, string>
  stop(): unknown
}

const ftp = ({ host, port, username, password, ca, stop }: FtpServer, remotePath: string): Service =>
  ({ type: 'ftp', config: { host, port: String(port), username, password, tls: 'explicit', ca_path: ca, remote_path: remotePath }, stop })

const once = async function* (text: string): ByteSource {
  yield Buffer.from(text)
}

/** One of each kind, started when its turn comes: they would slow each other down. */
const services: Record<string, () => Promise<Service>> = {
  'S3 on Ceph RADOS Gateway': async () => {
    const server = await startRgw()
    await makeBucket(server, 'backups')
    const { endpoint, accessKey, secretKey, stop } = server
    return { type: 'aws_s3', config: { bucket_name: 'backups', endpoint, access_key_id: accessKey, secret_access_key: secretKey, prefix: 'one/prefix' }, stop }
  },
  'GCS on a double': async () => {
    const { endpoint, stop } = await startGcsDouble()
    return { type: 'gcs', config: { bucket_name: 'backups', api_endpoint: endpoint, prefix: 'one/prefix/' }, stop }
  },
  'Azure Blob on azurite': async () => {
    const { endpoint, accountName, accountKey, stop } = await startAzurite()
    await new ContainerClient(`${endpoint}/backups`, new StorageSharedKeyCredential(accountName, accountKey)).create()
    return { type: 'azure_blob', config: { account_name: accountName, account_key: accountKey, container_name: 'backups', endpoint }, stop }
  },
  'FTP on ProFTPD with TLS': async () => {
    const server = await startProftpd({ tls: 'explicit' })
    return ftp(server, join(server.root, 'with blanks', 'and ümlauts'))
  },
  'FTP on vsftpd with TLS': async () => ftp(await startVsftpd({ tls: 'explicit' }), 'backups'),
  'SFTP on OpenSSH': async () => {
    const { host, port, username, privateKey, passphrase, fingerprint, root, stop } = await startSshd()
    const config = { host, port: String(port), username, private_key: readFileSync(privateKey, 'utf8'), passphrase, host_key_sha256: fingerprint, remote_path: join(root, 'backups') }
    return { type: 'sftp', config, stop }
  },
}

const world = await createWorld(t)
const before = await databaseContent(world.server.url('shop'))
await world.ok(['schedule', 'add', 'local', '--cron', '@daily', '--storage', 'disk'])
const local = (await world.ok(['run-now', 'local', '--json'])).json<ShownExecution>()

let number = 0
for (const [name, start] of Object.entries(services)) {
  await t.test(`there and back through ${name}`, async (t) => {
    const service = await start()
    let stopped: unknown
    const stop = (): unknown => (stopped ??= service.stop())
    t.teardown(() => stop())
    number += 1
    const storage = `remote${number}`
    const restored = async (reference: string, database: string): Promise<void> => {
      await world.ok(['restore', reference, '--into', database])
      t.same(await databaseContent(world.server.url(database)), before, `${database} holds what shop holds`)
    }
    await world.ok(['storage', 'add', storage, '--type', service.type, ...Object.entries(service.config).flatMap(([key, value]) => ['--set', `${key}=${value}`])])
    await world.ok(['storage', 'test', storage])
    await world.ok(['schedule', 'add', storage, '--cron', '@daily', '--storage', storage])

    const backup = (await world.ok(['run-now', storage, '--json'])).json<ShownExecution>()
    t.match(backup, { status: 'completed', verification_status: 'verified', warnings: [], backup_config: { storage, storage_type: service.type } })
    await world.ok(['verify', String(backup.id), '--level', 'archive'])
    await restored(String(backup.id), `back${number}`)

    const copy = (await world.ok(['copy', String(backup.id), '--to', 'disk', '--json'])).json<ShownExecution>()
    t.match(copy, { status: 'completed', verification_status: 'verified', checksum: backup.checksum, compressed_size_bytes: backup.compressed_size_bytes })
    const away = (await world.ok(['copy', String(local.id), '--to', storage, '--json'])).json<ShownExecution>()
    t.match(away, { status: 'completed', verification_status: 'verified', checksum: local.checksum })

    const secrets = backendOf(service.type).secretFields
    const config = Object.fromEntries(Object.entries(service.config).map(([key, value]) => [key, secrets.includes(key) ? new Secret(value) : value]))
    const direct = await openStorage(service.type, config, { log: silentLog(), parallelUploads: 1, retryFor: 10_000 })
    t.teardown(() => direct.close())
    const keys = async (): Promise<string[]> => {
      const found: string[] = []
      for await (const { key } of direct.list('', { signal: AbortSignal.timeout(30_000) })) found.push(key)
      return found.sort()
    }
    const good = await keys()
    t.equal(good.length, 8, 'two backups of three parts and a manifest each')
    const dead = `${new Date().toISOString().replace(/[-:]|\.\d+/g, '')}-dead-aaaaaa/globals.sql`
    await direct.write(dead, once('half a backup'), { signal: AbortSignal.timeout(30_000) })
    t.match((await world.ok(['storage', 'sweep', storage, '--json'])).json(), { remaining: [{ key: `${dead.split('/')[0]}/`, reason: /not old enough/ }] })
    t.match((await world.ok(['storage', 'sweep', storage, '--older-than', '0', '--json'])).json(), { folders: [{ folder: dead.split('/')[0], objects: 1, size: 13 }] })
    t.same(await keys(), good, 'a sweep leaves the backups')

    await stop()
    await restored(copy.backup_id, `copy${number}`)
    rmSync(join(world.storageDir, backup.backup_id), { recursive: true })
    const secret = service.config['secret_access_key'] ?? service.config['account_key'] ?? service.config['password'] ?? service.config['passphrase']
    if (secret !== undefined) t.notOk(world.printed.some((text) => text.includes(secret)), 'the secret was not printed')
  })
}
