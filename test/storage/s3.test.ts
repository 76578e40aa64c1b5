import t from 'tap'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:https'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as sdk from '@aws-sdk/client-s3'
import { BackupdError } from '../../src/errors.js'
import { silentLog } from '../../src/log.js'
import { openStorage } from '../../src/storage/registry.js'
import { asker } from '../../src/storage/asking.js'
import { s3Failure } from '../../src/storage/s3-failure.js'
import { partPlan, uploadToS3, type UploadTarget } from '../../src/storage/s3-upload.js'
import type { Storage } from '../../src/storage/storage.js'
import { bytes, collect, digestOf, failing } from '../conformance/bytes.js'
import { makeBucket, rawClient } from '../servers/buckets.js'
import { startHttpFaults, type Fate } from '../servers/http-faults.js'
import { startRgw } from '../servers/rgw.js'

const server = await startRgw()
t.teardown(() => server.stop())
const raw = rawClient(server)
t.teardown(() => raw.destroy())
await makeBucket(server, 'backups')
const faults = await startHttpFaults(server.port)
t.teardown(() => faults.stop())

const MiB = 1024 * 1024
const signal = new AbortController().signal
const good = { bucket_name: 'backups', endpoint: server.endpoint, access_key_id: server.accessKey, secret_access_key: server.secretKey }
const lying = { ...good, endpoint: `http://127.0.0.1:${faults.port}` }
let folders = 0
const open = async (config: Record<string, unknown> = {}, { retryFor = 0, parallelUploads = 3 } = {}): Promise<Storage> =>
  openStorage('aws_s3', { ...good, prefix: `f${(folders += 1)}`, ...config }, { log: silentLog(), parallelUploads, retryFor })
const xml = (status: number, code: string, message = 'told to', headers: Record<string, string> = {}): Fate =>
  ({ status, headers: { 'content-type': 'application/xml', ...headers }, body: `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${message}</Message></Error>` })

const everything = (storage: Storage): Record<string, () => Promise<unknown>> => ({
  write: () => storage.write('key', bytes(1, 10), { signal }),
  upload: () => storage.write('key', bytes(1, 9 * MiB), { signal }),
  read: () => collect(storage.read('key', { signal })),
  stat: () => storage.stat('key', { signal }),
  list: async () => { for await (const _ of storage.list('', { signal })) break },
  remove: () => storage.remove('key', { signal }),
  sweep: () => storage.sweep({ signal, olderThan: new Date() }),
})

await t.test('each mistake in the configuration has its code', async (c) => {
  const cases: [string, Record<string, unknown>, string, string[]][] = [
    ['wrong secret', { secret_access_key: 'wrong-secret' }, 'storage.auth', []],
    ['unknown key id', { access_key_id: 'NOBODY' }, 'storage.auth', []],
    ['no such bucket', { bucket_name: 'not-there' }, 'storage.no_bucket', ['stat', 'remove']],
    ['name not resolved', { endpoint: 'http://storage.invalid' }, 'storage.name_not_resolved', []],
    ['nothing listens', { endpoint: 'http://127.0.0.1:1' }, 'storage.unreachable', []],
  ]
  for (const [name, config, code, but] of cases) {
    const storage = await open(config)
    for (const [method, run] of Object.entries(everything(storage))) {
      if (!but.includes(method)) await c.rejects(async () => void (await run()), { code, hint: /./ }, `${name}: ${method}`)
    }
    const steps = await storage.probe({ signal })
    c.equal(steps.find(({ outcome }) => outcome === 'failed')?.code, code, `${name}: probe`)
    c.notMatch(JSON.stringify(steps), 'wrong-secret')
    await storage.close()
  }
})

await t.test('what is missing in the configuration is named', async (c) => {
  await c.rejects(openStorage('aws_s3', {}, { log: silentLog(), parallelUploads: 1, retryFor: 0 }), { code: 'storage.config_invalid', kind: 'configuration', message: /bucket_name is missing/ })
  await c.rejects(open({ secret_access_key: '' }), { code: 'storage.config_invalid', message: /belong together/ })
  await c.rejects(open({ endpoint: 'localhost:9000' }), { code: 'storage.config_invalid', message: /endpoint is not valid: expected a URL/ })
  await c.rejects(open({ checksum_mode: 'NEVER' }), { code: 'storage.config_invalid', message: /WHEN_REQUIRED/ })
})

await t.test('a certificate that is not trusted', async (c) => {
  const dir = mkdtempSync(join(tmpdir(), 'backupd-tls-'))
  c.teardown(() => rmSync(dir, { recursive: true }))
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=127.0.0.1', '-keyout', join(dir, 'key'), '-out', join(dir, 'cert')], { stdio: 'ignore' })
  const https = createServer({ key: readFileSync(join(dir, 'key')), cert: readFileSync(join(dir, 'cert')) }, (_, response) => response.end())
  https.listen(0, '127.0.0.1')
  await once(https, 'listening')
  c.teardown(() => new Promise((done) => https.close(done)))
  const storage = await open({ endpoint: `https://127.0.0.1:${(https.address() as AddressInfo).port}` }, { retryFor: 60_000 })
  await c.rejects(storage.write('key', bytes(1, 1), { signal }), { code: 'storage.tls', hint: /NODE_EXTRA_CA_CERTS/ })
  await storage.close()
})

await t.test('what the service refuses has its code, and is not tried again', async (c) => {
  const cases: [Fate, string][] = [
    [xml(403, 'RequestTimeTooSkewed', 'The difference between the request time and the current time is too large.'), 'storage.clock_skew'],
    [xml(301, 'PermanentRedirect', 'The bucket you are attempting to access must be addressed using the specified endpoint.'), 'storage.wrong_region'],
    [xml(400, 'AuthorizationHeaderMalformed', "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'"), 'storage.wrong_region'],
    [xml(403, 'ExpiredToken', 'The provided token has expired.'), 'storage.auth'],
    [xml(403, 'AccessDenied', 'Access Denied'), 'storage.denied'],
    [xml(403, 'AccessDenied', 'Access Denied because object protected by object lock.'), 'storage.locked'],
    [xml(403, 'QuotaExceeded', 'Quota'), 'storage.disk_full'],
    [xml(507, 'XMinioStorageFull', 'Storage backend has reached its minimum free drive threshold.'), 'storage.disk_full'],
    [xml(411, 'MissingContentLength', 'You must provide the Content-Length HTTP header.'), 'storage.unsupported'],
    [xml(501, 'NotImplemented', 'A header you provided implies functionality that is not implemented'), 'storage.unsupported'],
  ]
  const storage = await open(lying, { retryFor: 60_000 })
  for (const [fate, code] of cases) {
    faults.decide(() => fate)
    const before = faults.seen.length
    await c.rejects(storage.write('key', bytes(1, 1), { signal }), { code }, code)
    c.ok(faults.seen.length - before <= 3, `${code}: not tried again`)
  }
  faults.decide(() => xml(411, 'MissingContentLength'))
  await c.rejects(storage.write('key', bytes(1, 1), { signal }), { name: 'BackupdError', hint: /checksum_mode to WHEN_REQUIRED/ })
  await storage.close()
})

await t.test('bursts of 503, 500 and 429 are waited out', async (c) => {
  const storage = await open({ ...lying, prefix: 'bursts' }, { retryFor: 60_000 })
  let count = 0
  faults.decide(() => ((count += 1) % 3 === 0 ? 'pass' : [xml(503, 'SlowDown'), xml(500, 'InternalError'), xml(429, 'TooManyRequests')][count % 7 % 3] ?? 'pass'))
  await storage.write('key', bytes(1, 20 * MiB), { signal })
  c.strictSame(await digestOf(storage.read('key', { signal })), await digestOf(bytes(1, 20 * MiB)))
  await storage.close()
})

await t.test('Retry-After is honoured', async (c) => {
  const storage = await open({ ...lying, prefix: 'patience' }, { retryFor: 60_000 })
  let refused = false
  faults.decide(() => {
    if (refused) return 'pass'
    refused = true
    return xml(503, 'SlowDown', 'slow', { 'retry-after': '2' })
  })
  const start = Date.now()
  await storage.write('key', bytes(1, 1), { signal })
  c.ok(Date.now() - start >= 2_000, 'waited')
  refused = false
  const impatient = await open({ ...lying, prefix: 'patience' }, { retryFor: 1_000 })
  const again = Date.now()
  await c.rejects(impatient.write('key', bytes(1, 1), { signal }), { code: 'storage.throttled' })
  c.ok(Date.now() - again < 1_000, 'no use in waiting longer than one may')
  await Promise.all([storage.close(), impatient.close()])
})

await t.test('an error inside a 200 is an error', async (c) => {
  const storage = await open({ ...lying, prefix: 'inside' }, { retryFor: 60_000 })
  let lies = 2
  faults.decide(({ method, url }) => {
    if (method !== 'POST' || !url.includes('uploadId') || (lies -= 1) < 0) return 'pass'
    return { ...(xml(200, 'InternalError', 'We encountered an internal error. Please try again.') as object), status: 200 } as Fate
  })
  await storage.write('key', bytes(1, 9 * MiB), { signal })
  c.ok(lies < 0, 'the lies were told')
  c.strictSame(await digestOf(storage.read('key', { signal })), await digestOf(bytes(1, 9 * MiB)))
  lies = 1e9
  const hasty = await open({ ...lying, prefix: 'inside2' })
  await c.rejects(hasty.write('key', bytes(1, 9 * MiB), { signal }), { code: 'storage.unavailable' })
  c.equal(await hasty.stat('key', { signal }), undefined)
  c.strictSame(await hasty.sweep({ signal, olderThan: new Date(Date.now() + 1e6) }), { removed: [], remaining: [] }, 'aborted')
  await Promise.all([storage.close(), hasty.close()])
})

await t.test('a lost answer to the last request is no failure', async (c) => {
  for (const size of [10, 9 * MiB]) {
    for (const retryFor of [0, 60_000]) {
      const storage = await open({ ...lying, prefix: `lost-${size}-${retryFor}` }, { retryFor })
      let lost = false
      faults.decide(({ method, url }) => {
        const last = size === 10 ? method === 'PUT' : method === 'POST' && url.includes('uploadId')
        if (!last || lost) return 'pass'
        lost = true
        return 'lose'
      })
      c.strictSame(await storage.write('key', bytes(1, size), { signal }), { size })
      c.ok(lost)
      c.strictSame(await digestOf(storage.read('key', { signal })), await digestOf(bytes(1, size)))
      await storage.close()
    }
  }
})

await t.test('an object that is replaced while it is read is not mixed', async (c) => {
  const storage = await open({ prefix: 'mixed' }, { retryFor: 5_000 })
  const through = await open({ ...lying, prefix: 'mixed' }, { retryFor: 5_000 })
  faults.decide(() => 'pass')
  await storage.write('key', bytes(1, 30 * MiB), { signal })
  await c.rejects(async () => {
    let read = 0
    for await (const block of through.read('key', { signal })) {
      read += block.length
      if (read < 20 * MiB && read + block.length >= 20 * MiB) throw new BackupdError('test.unreachable', 'the reader got to the end')
      if (read > MiB && read < 2 * MiB) {
        await storage.write('key', bytes(2, 30 * MiB), { signal })
        // Whatever is open breaks; the read must go on with the same version, or not at all.
        await faults.stop()
      }
    }
  }, { code: /storage\.(unreachable|connection_lost|changed)/ })
  await Promise.all([storage.close(), through.close()])
})

await t.test('rights: write-only and no-delete are told from broken', async (c) => {
  const { accessKey, secretKey } = await server.addUser('limited')
  // Whoever stored an object here may read it unless that is denied.
  const allow = async (bucket: string, actions: string[], denied: string[] = []): Promise<Storage> => {
    await makeBucket(server, bucket)
    const Resource = [`arn:aws:s3:::${bucket}`, `arn:aws:s3:::${bucket}/*`]
    await raw.send(new sdk.PutBucketPolicyCommand({ Bucket: bucket, Policy: JSON.stringify({ Version: '2012-10-17', Statement: [
      { Effect: 'Allow', Principal: { AWS: ['arn:aws:iam:::user/limited'] }, Action: actions, Resource },
      ...(denied.length === 0 ? [] : [{ Effect: 'Deny', Principal: { AWS: ['arn:aws:iam:::user/limited'] }, Action: denied, Resource }]),
    ] }) }))
    return open({ bucket_name: bucket, access_key_id: accessKey, secret_access_key: secretKey, prefix: 'p' })
  }
  const outcomes = async (storage: Storage) => Object.fromEntries((await storage.probe({ signal })).map(({ name, outcome }) => [name, outcome]))

  const writeOnly = await allow('write-only', ['s3:PutObject', 's3:AbortMultipartUpload'], ['s3:GetObject'])
  c.strictSame(await outcomes(writeOnly), { connect: 'ok', write: 'ok', read: 'denied', list: 'denied', remove: 'denied' })
  c.strictSame(await writeOnly.write('large', bytes(1, 9 * MiB), { signal }), { size: 9 * MiB }, 'large objects too')
  await c.rejects(collect(writeOnly.read('large', { signal })), { code: 'storage.denied' })
  const keeping = await allow('keeping', ['s3:PutObject', 's3:GetObject', 's3:ListBucket'])
  c.strictSame(await outcomes(keeping), { connect: 'ok', write: 'ok', read: 'ok', list: 'ok', remove: 'denied' })
  await c.rejects(keeping.remove('key', { signal }), { code: 'storage.denied' })
  const reading = await allow('reading', ['s3:GetObject', 's3:ListBucket'])
  c.strictSame(await outcomes(reading), { connect: 'ok', write: 'denied', read: 'skipped', list: 'ok', remove: 'skipped' })
  await Promise.all([writeOnly, keeping, reading].map((storage) => storage.close()))
})

await t.test('a versioned bucket keeps what was removed, and sweep says so', async (c) => {
  await makeBucket(server, 'versions')
  await raw.send(new sdk.PutBucketVersioningCommand({ Bucket: 'versions', VersioningConfiguration: { Status: 'Enabled' } }))
  const storage = await open({ bucket_name: 'versions', prefix: 'p' })
  await storage.write('key', bytes(1, 10), { signal })
  await storage.write('key', bytes(2, 20), { signal })
  await storage.remove('key', { signal })
  c.equal(await storage.stat('key', { signal }), undefined)
  await c.rejects(collect(storage.read('key', { signal })), { code: 'storage.not_found' })
  const report = await storage.sweep({ signal, olderThan: new Date() })
  c.match(report, { removed: [], remaining: [{ reason: /2 removed or replaced ones \(30 bytes\)/ }] })
  await storage.close()
})

await t.test('object lock is on every object', async (c) => {
  await makeBucket(server, 'locked', { lock: true })
  for (const mode of ['WHEN_SUPPORTED', 'WHEN_REQUIRED']) {
    const storage = await open({ bucket_name: 'locked', object_lock_days: '3', checksum_mode: mode, prefix: mode })
    for (const size of [10, 17 * MiB]) {
      await storage.write(`key-${size}`, bytes(1, size), { signal })
      const head = await raw.send(new sdk.HeadObjectCommand({ Bucket: 'locked', Key: `${mode}/key-${size}` }))
      c.equal(head.ObjectLockMode, 'GOVERNANCE')
      c.ok(Math.abs((head.ObjectLockRetainUntilDate?.getTime() ?? 0) - Date.now() - 3 * 86_400_000) < 60_000)
      await c.rejects(raw.send(new sdk.DeleteObjectCommand({ Bucket: 'locked', Key: `${mode}/key-${size}`, VersionId: head.VersionId })), { name: 'AccessDenied' })
    }
    await storage.close()
  }
})

await t.test('storage class and encryption are asked for', async (c) => {
  const recorder = await startHttpFaults(server.port)
  c.teardown(() => recorder.stop())
  recorder.decide(() => ({ status: 403, body: '' }))
  const storage = await open({ ...lying, endpoint: `http://127.0.0.1:${recorder.port}`, storage_class: 'GLACIER_IR', server_side_encryption: 'aws:kms', kms_key_id: 'key/1' })
  for (const size of [10, 9 * MiB]) {
    await c.rejects(storage.write('key', bytes(1, size), { signal }), { code: 'storage.denied' })
    c.match(recorder.seen.find(({ method }) => method === (size === 10 ? 'PUT' : 'POST'))?.headers, {
      'x-amz-storage-class': 'GLACIER_IR', 'x-amz-server-side-encryption': 'aws:kms', 'x-amz-server-side-encryption-aws-kms-key-id': 'key/1',
    })
  }
  await storage.close()
})

await t.test('without a key the environment is asked', async (c) => {
  const names = { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey }
  Object.assign(process.env, names)
  c.teardown(() => { for (const name of Object.keys(names)) delete process.env[name] })
  const storage = await openStorage('aws_s3', { bucket_name: 'backups', endpoint: server.endpoint, prefix: 'env' }, { log: silentLog(), parallelUploads: 1, retryFor: 0 })
  await storage.write('key', bytes(1, 1), { signal })
  c.equal((await storage.stat('key', { signal }))?.size, 1)
  await storage.close()
})

await t.test('5 TiB of unknown length fit, in little memory', async (c) => {
  let total = 0
  for (let index = 0; index < partPlan.direct; index += 1) total += partPlan.size(index)
  const segment = partPlan.perSegment * partPlan.size(partPlan.direct)
  c.ok(segment <= 5 * 1024 * MiB, 'a segment can be copied into one part')
  c.ok(total + (10_000 - partPlan.direct) * segment >= 5 * 2 ** 40)
  c.ok(partPlan.size(1e6) <= 32 * MiB)
})

await t.test('the segments of very large objects', async (c) => {
  const target: UploadTarget = {
    client: raw, sdk, bucket: 'backups', prefix: 'segments/', parallel: 3, retryFor: 0, log: silentLog(), ask: asker(s3Failure, { retryFor: 0, log: silentLog() }),
    lasting: () => ({}), passing: () => ({}), md5: false,
    plan: { direct: 2, perSegment: 3, size: () => 5 * MiB },
  }
  const storage = await open({ prefix: 'segments' })
  const chunk = 5 * MiB
  for (const size of [2 * chunk, 2 * chunk + 1, 3 * chunk + 1, 5 * chunk, 5 * chunk + 1, 8 * chunk, 9 * chunk + 7]) {
    c.strictSame(await uploadToS3(target, 'segments/big', bytes(size, size), signal), { size })
    c.strictSame(await digestOf(storage.read('big', { signal })), await digestOf(bytes(size, size)), `${size} bytes`)
  }
  await storage.remove('big', { signal })
  for (const size of [2 * chunk + 1, 3 * chunk + 1, 6 * chunk, 8 * chunk + 1]) {
    await c.rejects(uploadToS3(target, 'segments/big', failing(1, size, new BackupdError('test.source', 'broken')), signal), { code: 'test.source' })
    c.equal(await storage.stat('big', { signal }), undefined)
  }
  const left = await raw.send(new sdk.ListObjectsV2Command({ Bucket: 'backups', Prefix: 'segments/' }))
  c.strictSame(left.Contents ?? [], [], 'no segment is left')
  c.strictSame(await storage.sweep({ signal, olderThan: new Date(Date.now() + 1e6) }), { removed: [], remaining: [] })
  await raw.send(new sdk.PutObjectCommand({ Bucket: 'backups', Key: 'segments/.backupd-partial/x/0', Body: 'left by a killed process' }))
  c.strictSame((await collect(storage.read('nothing', { signal })).catch((error: unknown) => (error as BackupdError).code)), 'storage.not_found')
  const listed: string[] = []
  for await (const { key } of storage.list('', { signal })) listed.push(key)
  c.strictSame(listed, [])
  c.strictSame((await storage.sweep({ signal, olderThan: new Date(Date.now() + 1e6) })).removed, ['.backupd-partial/x/0'])
  await storage.close()
})
