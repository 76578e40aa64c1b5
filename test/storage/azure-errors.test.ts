import t, { type Test } from 'tap'
import { ContainerClient, ContainerSASPermissions, StorageSharedKeyCredential, generateBlobSASQueryParameters } from '@azure/storage-blob'
import { silentLog } from '../../src/log.js'
import { azureFailure } from '../../src/storage/azure-failure.js'
import { blockSize, largestObject, mostBlocks } from '../../src/storage/azure-upload.js'
import { openStorage } from '../../src/storage/registry.js'
import type { Storage } from '../../src/storage/storage.js'
import { bytes, collect } from '../conformance/bytes.js'
import { freshFolder } from '../conformance/storage.js'
import { startAzurite } from '../servers/azurite.js'

const signal = new AbortController().signal
const server = await startAzurite()
t.teardown(server.stop)
const credential = new StorageSharedKeyCredential(server.accountName, server.accountKey)
const container = new ContainerClient(`${server.endpoint}/backups`, credential)
await container.create()
const base = { container_name: 'backups', account_name: server.accountName, account_key: server.accountKey, endpoint: server.endpoint }
const open = (config: Record<string, unknown> = {}): Promise<Storage> =>
  openStorage('azure_blob', { ...base, prefix: freshFolder(), ...config }, { log: silentLog(), parallelUploads: 2, retryFor: 0 })

const failsWith = async (t: Test, config: Record<string, unknown>, wanted: Record<string, unknown>): Promise<void> => {
  const storage = await open(config)
  t.match(await storage.write('a', bytes(1, 10), { signal }).then(() => undefined, (error: unknown) => error), wanted)
  await storage.close()
}

const sas = (permissions: string, expiresOn = new Date(Date.now() + 3_600_000)): string =>
  generateBlobSASQueryParameters({ containerName: 'backups', permissions: ContainerSASPermissions.parse(permissions), expiresOn }, credential).toString()

t.test('a connection string, and a SAS token with the rights of the documentation', async (t) => {
  for (const config of [{ account_name: undefined, account_key: undefined, endpoint: undefined, connection_string: server.connectionString }, { account_key: undefined, sas_token: `?${sas('rcwdl')}` }]) {
    const storage = await open(config)
    for (const size of [0, 10, 20_000_000]) {
      await storage.write('a', bytes(1, size), { signal })
      t.ok((await collect(storage.read('a', { signal }))).equals(await collect(bytes(1, size))))
    }
    const steps = await storage.probe({ signal })
    t.strictSame(steps.map(({ outcome }) => outcome), ['ok', 'ok', 'ok', 'ok', 'ok'], JSON.stringify(steps))
    t.notMatch(storage.location('a'), /sig=/)
    await storage.close()
  }
})

t.test('rights that are missing are denied steps of the probe', async (t) => {
  const outcomes = async (permissions: string): Promise<string[]> => {
    const storage = await open({ account_key: undefined, sas_token: sas(permissions) })
    const steps = await storage.probe({ signal })
    await storage.close()
    return steps.map(({ name, outcome }) => `${name} ${outcome}`)
  }
  t.strictSame(await outcomes('rcwl'), ['connect ok', 'write ok', 'read ok', 'list ok', 'remove denied'])
  t.strictSame(await outcomes('cw'), ['connect ok', 'write ok', 'read denied', 'list denied', 'remove denied'])
  t.strictSame(await outcomes('rl'), ['connect ok', 'write denied', 'read skipped', 'list ok', 'remove skipped'])
})

t.test('what is wrong has a name', async (t) => {
  await failsWith(t, { container_name: 'no-such-container' }, { code: 'storage.no_bucket' })
  await failsWith(t, { account_key: Buffer.from('wrong').toString('base64') }, { code: 'storage.auth' })
  await failsWith(t, { account_key: undefined, sas_token: sas('rcwdl', new Date(Date.now() - 1000)) }, { code: 'storage.auth' })
  await failsWith(t, { endpoint: 'http://127.0.0.1:1/account' }, { code: 'storage.unreachable' })
  await failsWith(t, { endpoint: 'http://no-such-host.invalid/account' }, { code: 'storage.name_not_resolved' })
  await t.rejects(open({ account_key: undefined }), { code: 'storage.config_invalid', message: /connection_string, or account_name/ })
  await t.rejects(open({ connection_string: 'nonsense' }), { code: 'storage.config_invalid' })
})

t.test('answers that azurite does not give', async (t) => {
  const rest = (statusCode: number, code?: string, rest: object = {}): Error => Object.assign(new Error('said the service\nRequest: with headers'), { statusCode, code, ...rest })
  t.match(azureFailure(rest(403, 'AuthenticationFailed', { details: { authenticationErrorDetail: 'Request date header too old' } }), 'x'), { code: 'storage.clock_skew' })
  t.match(azureFailure(rest(503, 'ServerBusy', { response: { headers: { get: () => '7' } } }), 'x'), { code: 'storage.throttled', retryable: true, details: { retryAfter: 7000 } })
  t.match(azureFailure(rest(409, 'BlobImmutableDueToPolicy'), 'x'), { code: 'storage.locked' })
  t.match(azureFailure(rest(404, undefined, { response: { headers: { get: (name: string) => (name === 'x-ms-error-code' ? 'ContainerNotFound' : undefined) } } }), 'x'), { code: 'storage.no_bucket' })
  t.match(azureFailure(rest(500), 'x'), { code: 'storage.unavailable', retryable: true })
  t.notMatch(azureFailure(rest(500), 'x').message, /headers/)
})

t.test('the tier is set', async (t) => {
  const prefix = freshFolder()
  const storage = await open({ prefix, access_tier: 'Cool' })
  for (const size of [10, 20_000_000]) {
    await storage.write(`a${size}`, bytes(1, size), { signal })
    t.equal((await container.getBlobClient(`${prefix}/a${size}`).getProperties()).accessTier, 'Cool')
  }
  await storage.close()
})

t.test('blocks grow, so that the most of them make more than 2 TiB', async (t) => {
  let total = 0
  for (let index = 0; index < mostBlocks; index += 1) total += blockSize(index)
  t.equal(total, largestObject)
  t.ok(total > 2 * 2 ** 40)
})

t.test('an empty object that a sweep left half-way is none, and goes with the next one', async (t) => {
  const prefix = freshFolder()
  const storage = await open({ prefix })
  await container.getBlockBlobClient(`${prefix}/x`).upload('', 0, { metadata: { backupd_sweep: '1' } })
  t.equal(await storage.stat('x', { signal }), undefined)
  for await (const object of storage.list('', { signal })) t.fail(object.key)
  await t.rejects(collect(storage.read('x', { signal })), { code: 'storage.not_found' })
  t.strictSame(await storage.sweep({ signal, olderThan: new Date(Date.now() + 3_600_000) }), { removed: ['x'], remaining: [] })
  await storage.close()
})
