import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { makeBucket } from '../servers/buckets.js'
import { startHttpFaults } from '../servers/http-faults.js'
import { startRgw } from '../servers/rgw.js'
import { startSshd } from '../servers/sshd.js'
import { databaseContent } from '../support/content.js'
import { createWorld, type ShownExecution } from './world.js'

interface ShownCopy extends ShownExecution {
  copy_of: number | null
}

t.test('from a folder to S3, from there to SFTP, and back when the original is gone', async (t) => {
  const world = await createWorld(t)
  const s3 = await startRgw()
  t.teardown(() => s3.stop())
  await makeBucket(s3, 'copies')
  const faults = await startHttpFaults(s3.port)
  t.teardown(() => faults.stop())
  const ssh = await startSshd()
  t.teardown(() => ssh.stop())
  const set = (config: Record<string, string>): string[] => Object.entries(config).flatMap(([key, value]) => ['--set', `${key}=${value}`])
  const bucket = { bucket_name: 'copies', endpoint: `http://127.0.0.1:${faults.port}`, access_key_id: s3.accessKey, secret_access_key: s3.secretKey }
  await world.ok(['storage', 'add', 'cloud', '--type', 'aws_s3', ...set(bucket)])
  await world.ok(['storage', 'add', 'server', '--type', 'sftp', ...set({
    host: ssh.host, port: String(ssh.port), username: ssh.username, private_key: readFileSync(ssh.privateKey, 'utf8'), passphrase: ssh.passphrase,
    host_key_sha256: ssh.fingerprint, remote_path: join(ssh.root, 'backups'),
  })])
  await world.ok(['schedule', 'add', 'shop', '--cron', '@daily', '--storage', 'disk'])
  const original = (await world.ok(['run-now', 'shop', '--json'])).json<ShownCopy>()
  const before = await databaseContent(world.server.url('shop'))

  // The target is full by the time that the manifest comes.
  faults.decide(({ method, url }) => (method === 'PUT' && url.includes('manifest.json') ? { status: 507, body: '<Error><Code>XMinioStorageFull</Code></Error>' } : 'pass'))
  const full = await world.run(['copy', String(original.id), '--to', 'cloud', '--json'])
  t.equal(full.code, 1)
  t.match(full.json(), { error: { code: 'storage.disk_full' } })
  faults.decide(() => 'pass')
  t.equal((await world.ok(['show', String(original.id), '--json'])).json<ShownCopy>().status, 'completed')

  const cloud = (await world.ok(['copy', String(original.id), '--to', 'cloud', '--json'])).json<ShownCopy>()
  t.equal(cloud.copy_of, original.id)
  const server = (await world.ok(['copy', String(cloud.id), '--to', 'server', '--json'])).json<ShownCopy>()
  t.equal(server.status, 'completed')
  rmSync(world.storageDir, { recursive: true })
  await world.ok(['verify', String(server.id)])
  await world.ok(['restore', String(server.id), '--into', 'again'])
  t.strictSame(await databaseContent(world.server.url('again')), before)
})
