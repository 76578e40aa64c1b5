import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { silentLog } from '../../src/log.js'
import { createThrottle } from '../../src/pipeline/throttle.js'
import { openStorage } from '../../src/storage/registry.js'
import type { Storage } from '../../src/storage/storage.js'
import { bytes, collect } from '../conformance/bytes.js'
import { makeBucket } from '../servers/buckets.js'
import { startRgw } from '../servers/rgw.js'

const server = await startRgw()
t.teardown(() => server.stop())
await makeBucket(server, 'shared')
const MiB = 1024 * 1024
const signal = new AbortController().signal
const key = { access_key_id: server.accessKey, secret_access_key: server.secretKey }
const open = (config: Record<string, unknown>): Promise<Storage> =>
  openStorage('aws_s3', { bucket_name: 'shared', endpoint: server.endpoint, ...config }, { log: silentLog(), parallelUploads: 4, retryFor: 0 })

/** Changes the environment for as long as a test runs. */
const setting = (c: { teardown(undo: () => void): void }, values: Record<string, string>): void => {
  const before = Object.keys(process.env).filter((name) => name.startsWith('AWS_')).map((name) => [name, process.env[name]] as const)
  for (const [name] of before) delete process.env[name]
  Object.assign(process.env, values)
  c.teardown(() => {
    for (const name of Object.keys(values)) delete process.env[name]
    for (const [name, value] of before) process.env[name] = value
  })
}

const listening = async (c: { teardown(stop: () => unknown): void }, answer: RequestListener): Promise<string> => {
  const http = createServer(answer).listen(0, '127.0.0.1')
  await once(http, 'listening')
  c.teardown(() => {
    http.closeAllConnections()
    http.close()
  })
  return `http://127.0.0.1:${(http.address() as AddressInfo).port}`
}

const folder = (c: { teardown(remove: () => void): void }): string => {
  const dir = mkdtempSync(join(tmpdir(), 'backupd-aws-'))
  c.teardown(() => rmSync(dir, { recursive: true }))
  return dir
}

// What would be found on this machine must not decide.
const nowhere = { AWS_CONFIG_FILE: '/nonexistent', AWS_SHARED_CREDENTIALS_FILE: '/nonexistent' }

const works = async (c: Test, prefix: string): Promise<void> => {
  const storage = await open({ prefix })
  await storage.write('key', bytes(1, 10), { signal })
  c.equal((await storage.stat('key', { signal }))?.size, 10)
  await storage.close()
}

await t.test('credentials of a profile', async (c) => {
  const file = join(folder(c), 'credentials')
  writeFileSync(file, `[default]\naws_access_key_id=wrong\naws_secret_access_key=wrong\n[backup]\naws_access_key_id=${server.accessKey}\naws_secret_access_key=${server.secretKey}\n`)
  setting(c, { ...nowhere, AWS_SHARED_CREDENTIALS_FILE: file, AWS_PROFILE: 'backup' })
  await works(c, 'profile')
})

await t.test('credentials of a container', async (c) => {
  const url = await listening(c, (request, response) => {
    const right = request.headers.authorization === 'token of the container'
    response.writeHead(right ? 200 : 403, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ AccessKeyId: server.accessKey, SecretAccessKey: server.secretKey, Token: '', Expiration: new Date(Date.now() + 3_600_000).toISOString() }))
  })
  setting(c, { ...nowhere, AWS_CONTAINER_CREDENTIALS_FULL_URI: `${url}/credentials`, AWS_CONTAINER_AUTHORIZATION_TOKEN: 'token of the container' })
  await works(c, 'container')
})

await t.test('no credentials anywhere is soon known, also where the service of the instance is silent', async (c) => {
  const url = await listening(c, () => undefined)
  setting(c, { ...nowhere, AWS_EC2_METADATA_SERVICE_ENDPOINT: url })
  const storage = await open({})
  const begun = Date.now()
  await c.rejects(storage.write('key', bytes(1, 1), { signal }), { code: 'storage.auth', hint: /access_key_id.*AWS_PROFILE/ })
  c.ok(Date.now() - begun < 15_000, `after ${Date.now() - begun} ms`)
  await storage.close()
})

await t.test('storages that share a bucket do not see each other', async (c) => {
  const prefixes = ['a', '/ab/', 'a b/ü']
  const storages = await Promise.all(prefixes.map((prefix) => open({ ...key, prefix })))
  await Promise.all(storages.map((storage, index) => storage.write(`ключ ${index}`, bytes(index, 10), { signal })))
  const keys = async (storage: Storage): Promise<string[]> => {
    const found: string[] = []
    for await (const object of storage.list('', { signal })) found.push(object.key)
    return found
  }
  for (const [index, storage] of storages.entries()) c.strictSame(await keys(storage), [`ключ ${index}`], `prefix ${prefixes[index]}`)
  await storages[0]?.remove('ключ 0', { signal })
  c.strictSame(await keys(storages[0] as Storage), [])
  const again = await open({ ...key, prefix: 'ab' })
  c.strictSame(await collect(again.read('ключ 1', { signal })), await collect(bytes(1, 10)), 'slashes make no other prefix')
  await Promise.all([again, ...storages].map((storage) => storage.close()))
})

await t.test('a bandwidth limit holds over all parts in flight', async (c) => {
  const storage = await open({ ...key, prefix: 'slow' })
  const mbps = 80
  const size = 50 * MiB
  const begun = Date.now()
  await storage.write('object', createThrottle(mbps).stage(bytes(1, size), signal), { signal })
  const rate = (size * 8) / 1000 / (Date.now() - begun)
  c.ok(rate < mbps * 1.1, `${rate.toFixed(1)} Mbit/s are not more than 10 % above ${mbps}`)
  c.comment(`${rate.toFixed(1)} Mbit/s`)
  await storage.close()
})
