import t from 'tap'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLog } from '../../src/log.js'
import { multipartLimit } from '../../src/storage/gcs-multipart.js'
import { openStorage } from '../../src/storage/registry.js'
import type { Storage } from '../../src/storage/storage.js'
import { bytes, collect, digestOf } from '../conformance/bytes.js'
import { startGcsDouble } from '../servers/gcs-double.js'
import { startHttpFaults, type Fate } from '../servers/http-faults.js'

// Against a double: see there why.
const double = await startGcsDouble()
t.teardown(() => double.stop())
const faults = await startHttpFaults(double.port)
t.teardown(() => faults.stop())

const MiB = 1024 * 1024
const signal = new AbortController().signal
const later = (): Date => new Date(Date.now() + 1e6)
let folders = 0
const open = async (config: Record<string, unknown> = {}, { retryFor = 0, parallelUploads = 3 } = {}): Promise<Storage> =>
  openStorage('gcs', { bucket_name: 'backups', api_endpoint: double.endpoint, prefix: `f${(folders += 1)}`, ...config }, { log: silentLog(), parallelUploads, retryFor })
const through = { api_endpoint: `http://127.0.0.1:${faults.port}` }
const refusal = (status: number, reason: string, message: string): Fate =>
  ({ status, headers: { 'content-type': 'application/json' }, body: JSON.stringify({ error: { code: status, message, errors: [{ reason, message }] } }) })

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
  const cases: [Record<string, unknown>, string][] = [
    [{ bucket_name: 'not-there' }, 'storage.no_bucket'],
    [{ api_endpoint: 'http://storage.invalid' }, 'storage.name_not_resolved'],
    [{ api_endpoint: 'http://127.0.0.1:1' }, 'storage.unreachable'],
    [{ api_endpoint: `https://127.0.0.1:${double.port}` }, 'storage.tls'],
  ]
  for (const [config, code] of cases) {
    for (const parallelUploads of [1, 3]) {
      const storage = await open(config, { parallelUploads })
      for (const [method, run] of Object.entries(everything(storage))) await c.rejects(async () => void (await run()), { code, hint: /./ }, `${code}: ${method}`)
      c.equal((await storage.probe({ signal })).find(({ outcome }) => outcome === 'failed')?.code, code, `${code}: probe`)
      await storage.close()
    }
  }
  double.requireToken('secret-token')
  const unsigned = await open()
  for (const [method, run] of Object.entries(everything(unsigned))) await c.rejects(async () => void (await run()), { code: 'storage.auth' }, method)
  double.requireToken(undefined)
  await unsigned.close()
  await c.rejects(open({ credentials_json: 'not json' }), { code: 'storage.config_invalid', message: /credentials_json is not valid: expected the JSON text/ })
  await c.rejects(open({ credentials_json: '{}', credentials_path: '/x' }), { code: 'storage.config_invalid', message: /only one of/ })
})

await t.test('what the service refuses has its code', async (c) => {
  const cases: [Fate, string][] = [
    [refusal(403, 'forbidden', 'x@y does not have storage.objects.create access to the Google Cloud Storage object.'), 'storage.denied'],
    [refusal(403, 'retentionPolicyNotMet', "Object 'x' is subject to bucket's retention policy"), 'storage.locked'],
    [refusal(401, 'authError', 'Invalid Credentials'), 'storage.auth'],
    [refusal(429, 'rateLimitExceeded', 'The rate of change requests to the object x exceeds the rate limit.'), 'storage.throttled'],
    [refusal(503, 'backendError', 'Backend Error'), 'storage.unavailable'],
    [refusal(413, 'uploadTooLarge', 'too large'), 'storage.too_large'],
    [{ status: 502, body: '<html>Bad Gateway</html>' }, 'storage.unavailable'],
  ]
  for (const parallelUploads of [1, 3]) {
    const storage = await open(through, { parallelUploads })
    for (const [fate, code] of cases) {
      faults.decide(() => fate)
      await c.rejects(storage.write('key', bytes(1, 1), { signal }), { code }, code)
      await c.rejects(storage.remove('key', { signal }), { code }, code)
    }
    await storage.close()
  }
  faults.decide(() => 'pass')
})

await t.test('signs in with credentials', async (c) => {
  const dir = mkdtempSync(join(tmpdir(), 'backupd-gcs-'))
  c.teardown(() => rmSync(dir, { recursive: true }))
  const issuer = createServer((request, response) => {
    request.resume()
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ access_token: 'issued', issued_token_type: 'urn:ietf:params:oauth:token-type:access_token', token_type: 'Bearer', expires_in: 3600 }))
  })
  issuer.listen(0, '127.0.0.1')
  await once(issuer, 'listening')
  c.teardown(() => { issuer.closeAllConnections(); issuer.close() })
  writeFileSync(join(dir, 'subject'), 'a token of the identity provider')
  const credentials = (port: number): string => JSON.stringify({
    type: 'external_account', audience: '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x',
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt', token_url: `http://127.0.0.1:${port}/token`, credential_source: { file: join(dir, 'subject') },
  })
  const { port } = issuer.address() as AddressInfo
  writeFileSync(join(dir, 'credentials.json'), credentials(port))
  double.requireToken('issued')
  c.teardown(() => double.requireToken(undefined))
  for (const config of [{ credentials_json: credentials(port) }, { credentials_path: join(dir, 'credentials.json') }]) {
    const storage = await open(config)
    await storage.write('key', bytes(1, 9 * MiB), { signal })
    c.strictSame(await digestOf(storage.read('key', { signal })), await digestOf(bytes(1, 9 * MiB)))
    await storage.close()
  }
  double.requireToken('another')
  const refused = await open({ credentials_json: credentials(port) })
  await c.rejects(refused.write('key', bytes(1, 1), { signal }), { code: 'storage.auth' })
  const nobody = await open({ credentials_json: credentials(1) })
  await c.rejects(nobody.write('key', bytes(1, 1), { signal }), { code: 'storage.unreachable' })
  const broken = await open({ credentials_path: join(dir, 'not-there.json') })
  await c.rejects(broken.write('key', bytes(1, 1), { signal }), { code: 'storage.auth', message: /not-there/ })
  await Promise.all([refused, nobody, broken].map((storage) => storage.close()))
})

await t.test('bursts of 503 and 429 are waited out, Retry-After is honoured', async (c) => {
  for (const parallelUploads of [1, 3]) {
    const storage = await open({}, { retryFor: 60_000, parallelUploads })
    double.failNext(4, 503)
    await storage.write('key', bytes(1, 20 * MiB), { signal })
    double.failNext(3, 429)
    c.strictSame(await digestOf(storage.read('key', { signal })), await digestOf(bytes(1, 20 * MiB)))
    double.failNext(1, 503, 1)
    const start = Date.now()
    await storage.write('key', bytes(1, 1), { signal })
    c.ok(Date.now() - start >= 1_000, 'waited')
    await storage.close()
  }
})

await t.test('an error inside a 200 is an error', async (c) => {
  const storage = await open({}, { retryFor: 60_000 })
  double.lieOnce()
  await storage.write('key', bytes(1, 9 * MiB), { signal })
  c.strictSame(await digestOf(storage.read('key', { signal })), await digestOf(bytes(1, 9 * MiB)))
  const hasty = await open()
  double.lieOnce()
  await c.rejects(hasty.write('key', bytes(1, 9 * MiB), { signal }), { code: 'storage.unavailable' })
  c.equal(await hasty.stat('key', { signal }), undefined)
  c.strictSame(await hasty.sweep({ signal, olderThan: later() }), { removed: [], remaining: [] }, 'aborted')
  await Promise.all([storage.close(), hasty.close()])
})

await t.test('a lost answer to the last request is no failure', async (c) => {
  for (const [parallelUploads, size] of [[3, 10], [3, 9 * MiB], [1, 10], [1, 9 * MiB]] as const) {
    const storage = await open(through, { parallelUploads, retryFor: 60_000 })
    let lost = false
    faults.decide(({ method, url, headers }) => {
      const last = parallelUploads === 1 ? method === 'PUT' && /\/\d+$/.test(headers['content-range'] ?? '') : method === 'POST' && /uploadId|uploadType=multipart/.test(url)
      if (!last || lost) return 'pass'
      lost = true
      return 'lose'
    })
    c.strictSame(await storage.write('key', bytes(1, size), { signal }), { size })
    c.ok(lost)
    c.strictSame(await digestOf(storage.read('key', { signal })), await digestOf(bytes(1, size)))
    await storage.close()
  }
  faults.decide(() => 'pass')
})

await t.test('bytes that the service damaged are found out', async (c) => {
  double.corrupt(true)
  c.teardown(() => double.corrupt(false))
  for (const [parallelUploads, size] of [[3, 10], [3, 9 * MiB], [1, 10], [1, 9 * MiB]] as const) {
    const storage = await open({}, { parallelUploads })
    await c.rejects(storage.write('key', bytes(1, size), { signal }), { code: 'storage.checksum' })
    c.equal(await storage.stat('key', { signal }), undefined, 'it is not left')
    await storage.close()
  }
})

await t.test('an object that is replaced while it is read is not mixed', async (c) => {
  const storage = await open({ prefix: 'mixed' })
  const reader = await open({ ...through, prefix: 'mixed' }, { retryFor: 60_000 })
  await storage.write('key', bytes(1, 30 * MiB), { signal })
  let opened = 0
  // The first answer ends early, so that the rest is asked for.
  faults.decide(({ url }) => (url.includes('alt=media') && (opened += 1) === 1
    ? { status: 206, headers: { 'content-length': String(8 * MiB), 'content-range': `bytes 0-${8 * MiB - 1}/${30 * MiB}`, 'x-goog-generation': '1', connection: 'close' }, body: 'x'.repeat(1000) } : 'pass'))
  await c.rejects(collect(reader.read('key', { signal })), { code: 'storage.changed' })
  faults.decide(() => 'pass')
  await Promise.all([storage.close(), reader.close()])
})

await t.test('a storage class is asked for', async (c) => {
  for (const [parallelUploads, size] of [[3, 10], [3, 9 * MiB], [1, 10]] as const) {
    const storage = await open({ storage_class: 'NEARLINE', prefix: 'class' }, { parallelUploads })
    await storage.write('key', bytes(1, size), { signal })
    const answer = await fetch(`${double.endpoint}/storage/v1/b/backups/o/${encodeURIComponent('class/key')}`)
    c.equal(((await answer.json()) as { storageClass: string }).storageClass, 'NEARLINE')
    await storage.close()
  }
})

await t.test('the limit of parallel parts is what the message says', async (c) => {
  c.ok(multipartLimit > 500 * 1024 * MiB)
})
