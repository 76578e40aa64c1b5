import t from 'tap'
import fc from 'fast-check'
import { setTimeout as delay } from 'node:timers/promises'
import { CRC32C } from '@google-cloud/storage'
import { BackupdError } from '../../src/errors.js'
import { silentLog } from '../../src/log.js'
import { chunksOf, sendChunks } from '../../src/storage/chunks.js'
import { combineCrc32c, crc32c, crcText } from '../../src/storage/crc32c.js'
import { failureClasses, httpFailure, retryAfter, storageError, systemFailure } from '../../src/storage/failure.js'
import { checkKey, checkListPrefix, isPartial, normalisePrefix } from '../../src/storage/prefix.js'
import { checkConfig, configKeys, openStorage, storageBackends } from '../../src/storage/registry.js'
import { readWithResume } from '../../src/storage/resume.js'
import { backoff, pauseAfter, retry } from '../../src/storage/retry.js'
import { backendTypes, type ByteSource } from '../../src/storage/storage.js'
import { Secret } from '../../src/secret.js'
import { bytes, collect, stalling } from '../conformance/bytes.js'

const signal = new AbortController().signal
const log = silentLog()

const blocks = async function* (sizes: number[]): AsyncGenerator<Uint8Array, void, undefined> {
  let next = 0
  for (const size of sizes) yield Buffer.from(Array.from({ length: size }, () => (next += 1) & 255))
}

await t.test('chunks have the size asked for, and all the bytes', async (c) => {
  await fc.assert(fc.asyncProperty(fc.array(fc.nat(40), { maxLength: 30 }), fc.integer({ min: 1, max: 25 }), fc.integer({ min: 0, max: 5 }), async (sizes, size, growth) => {
    const sizeOf = (index: number): number => size + index * growth
    const got: Buffer[] = []
    let offset = 0
    let ended = false
    for await (const chunk of chunksOf(blocks(sizes), { size: sizeOf, signal })) {
      if (ended || chunk.index !== got.length || chunk.offset !== offset) return false
      if (chunk.last ? chunk.data.length > sizeOf(chunk.index) : chunk.data.length !== sizeOf(chunk.index)) return false
      if (chunk.last && chunk.data.length === 0 && chunk.index > 0) return false
      ended = chunk.last
      got.push(Buffer.from(chunk.data))
      offset += chunk.data.length
    }
    return ended && Buffer.concat(got).equals(await collect(blocks(sizes)))
  }))
  c.pass('for any blocks')
})

await t.test('chunks are sent so many at a time, in bounded memory', async (c) => {
  for (const [parallel, memory, most] of [[1, Infinity, 1], [3, Infinity, 3], [5, 250, 2], [3, 50, 1]] as const) {
    let flying = 0
    let peak = 0
    const { size, results } = await sendChunks({
      source: bytes(1, 2_100), size: 100, parallel, memory, signal,
      send: async ({ index, data }) => {
        flying += 1
        peak = Math.max(peak, flying)
        const copy = data.toString('hex')
        await delay(Math.random() * 5)
        if (data.toString('hex') !== copy) throw new Error('the memory was used again too early')
        flying -= 1
        return index
      },
    })
    c.equal(size, 2_100)
    c.strictSame(results, Array.from({ length: 21 }, (_, index) => index))
    c.equal(peak, most)
  }
})

await t.test('the first chunk that fails stops all and closes the source', async (c) => {
  const { source, closed } = stalling(1, 1_000)
  let stopped = 0
  await c.rejects(sendChunks({
    source, size: 100, parallel: 3, signal,
    send: async ({ index }, stop) => {
      if (index === 4) throw new BackupdError('test.part', 'part 4')
      if (index < 2) return
      await new Promise<void>((resolve) => stop.addEventListener('abort', () => { stopped += 1; resolve() }))
      throw new Error('only a consequence')
    },
  }), { code: 'test.part' })
  c.equal(stopped, 2)
  c.ok(closed())
})

await t.test('retries what may succeed, for as long as it was asked for', async (c) => {
  backoff.first = 5
  c.teardown(() => { backoff.first = 250 })
  let calls = 0
  const failing = (times: number, code: 'storage.timeout' | 'storage.denied') => async (): Promise<string> => {
    calls += 1
    if (calls <= times) throw storageError(code, 'no')
    return 'yes'
  }
  c.equal(await retry(failing(3, 'storage.timeout'), { retryFor: 10_000, signal, log, what: 'it' }), 'yes')
  c.equal(calls, 4)
  calls = 0
  await c.rejects(retry(failing(3, 'storage.denied'), { retryFor: 10_000, signal, log, what: 'it' }), { code: 'storage.denied' })
  c.equal(calls, 1)
  calls = 0
  await c.rejects(retry(failing(1, 'storage.timeout'), { retryFor: 0, signal, log, what: 'it' }), { code: 'storage.timeout' })
  c.equal(calls, 1)
  calls = 0
  const start = Date.now()
  await c.rejects(retry(failing(1e9, 'storage.timeout'), { retryFor: 300, signal, log, what: 'it' }), { code: 'storage.timeout' })
  c.ok(Date.now() - start < 2_000)
  c.ok(calls > 3)
  const controller = new AbortController()
  setTimeout(() => controller.abort(new BackupdError('test.stop', 'stop')), 30)
  await c.rejects(retry(failing(1e9, 'storage.timeout'), { retryFor: 60_000, signal: controller.signal, log, what: 'it' }), { code: 'test.stop' })
})

await t.test('pauses grow, jitter, and obey the server', async (c) => {
  fc.assert(fc.property(fc.nat(100), fc.nat(100_000), fc.double({ min: 0, max: 0.999, noNaN: true }), (attempt, asked, random) => {
    const pause = pauseAfter(attempt, asked, random)
    return pause >= asked && pause <= Math.max(asked, backoff.most)
  }))
  c.equal(pauseAfter(0, 0, 0), 0)
  c.equal(pauseAfter(2, 0, 0.5), 500)
  c.equal(pauseAfter(50, 0, 0.5), 15_000)
  c.equal(retryAfter('7'), 7_000)
  c.equal(retryAfter('Mon, 23 Nov 2026 10:00:05 GMT', Date.parse('2026-11-23T10:00:00Z')), 5_000)
  c.equal(retryAfter('Mon, 23 Nov 2026 10:00:05 GMT', Date.parse('2027-11-23T10:00:00Z')), 0)
  c.equal(retryAfter('soon'), undefined)
  c.equal(retryAfter(undefined), undefined)
})

await t.test('a read resumes at the offset reached, and never delivers less or more', async (c) => {
  backoff.first = 1
  c.teardown(() => { backoff.first = 250 })
  const whole = await collect(bytes(3, 10_000))
  await fc.assert(fc.asyncProperty(
    fc.nat(12_000), fc.option(fc.nat(12_000), { nil: undefined }), fc.array(fc.tuple(fc.nat(3_000), fc.constantFrom('error', 'end', 'more')), { maxLength: 6 }),
    async (offset, length, cuts) => {
      const left = [...cuts]
      const wanted = whole.subarray(offset, length === undefined ? undefined : offset + length)
      let lied = false
      const read = readWithResume<string>({
        key: 'k', offset, length, retryFor: 10_000, signal, log, classify: (error) => error as BackupdError,
        open: async (range, tag) => {
          if (tag !== undefined && tag !== 'v1') throw new Error('another version')
          const part = whole.subarray(range.offset, range.end)
          const cut = left.shift()
          const body = async function* (): ByteSource {
            if (cut === undefined) return yield part
            if (cut[1] === 'more' && part.length > 0) {
              lied = true
              return yield Buffer.concat([part, Buffer.from('more')])
            }
            if (cut[0] > 0) yield part.subarray(0, cut[0])
            if (cut[1] === 'error') throw storageError('storage.connection_lost', 'cut')
          }
          return { body: body(), size: whole.length, tag: 'v1' }
        },
      })
      const got = await collect(read)
      return got.equals(wanted) || lied
    }))
  c.pass('for any cuts')
})

await t.test('prefixes and keys', async (c) => {
  for (const given of ['a/b', '/a/b', 'a/b/', '//a//b//']) c.equal(normalisePrefix(given), 'a/b/')
  for (const given of ['', '/', '//', undefined]) c.equal(normalisePrefix(given), '')
  fc.assert(fc.property(fc.string(), (prefix) => normalisePrefix(normalisePrefix(prefix)) === normalisePrefix(prefix)))
  c.ok(isPartial('a/.backupd-partial/b'))
  c.notOk(isPartial('a/.backupd-partial-not/b'))
  for (const prefix of ['', 'a', 'a/', 'a/b', '.hid', 'a/.', 'a/..']) c.doesNotThrow(() => checkListPrefix(prefix), prefix)
  for (const prefix of ['/', '../a', 'a/../b', 'a//', '../', './']) c.throws(() => checkListPrefix(prefix), { code: 'storage.key_invalid' }, prefix)
  // What is let through can be joined to a folder without leaving it.
  fc.assert(fc.property(fc.oneof(fc.string(), fc.array(fc.constantFrom('..', '.', '', 'a', '/', '\0')).map((names) => names.join('/'))), (key) => {
    try {
      checkKey(key)
    } catch {
      return true
    }
    return new URL(encodeURI(key).replaceAll('#', '%23').replaceAll('?', '%3F'), 'http://host/base/').pathname.startsWith('/base/') || key.includes('\\') || /^[a-z][a-z0-9+.-]*:/i.test(key)
  }))
})

await t.test('CRC-32C is the one of the service’s own library', async (c) => {
  c.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 300 }), fc.nat(8), (first, second, offset) => {
    // At any place in memory.
    const at = (data: Uint8Array): Buffer => Buffer.concat([Buffer.alloc(offset), data]).subarray(offset)
    const [a, b] = [at(first), at(second)]
    const whole = Buffer.concat([a, b])
    const reference = new CRC32C()
    reference.update(whole)
    return crcText(crc32c(whole)) === reference.toString() && combineCrc32c(crc32c(a), crc32c(b), b.length) === crc32c(whole) && crc32c(b, crc32c(a)) === crc32c(whole)
  }))
})

await t.test('every class of failure says what to do', async (c) => {
  for (const [code, { hint }] of Object.entries(failureClasses)) c.ok(hint.length > 20, code)
  c.equal(systemFailure(Object.assign(new Error('x'), { cause: { code: 'ECONNRESET' } }))?.code, 'storage.connection_lost')
  c.equal(systemFailure(new AggregateError([Object.assign(new Error('x'), { code: 'ECONNREFUSED' })]))?.code, 'storage.unreachable')
  c.strictSame(systemFailure({ code: 'EAI_AGAIN' }), { code: 'storage.name_not_resolved', retryable: true })
  c.equal(systemFailure({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' })?.code, 'storage.tls')
  c.equal(systemFailure(new Error('x')), undefined)
  c.strictSame([200, 401, 403, 404, 429, 500, 503, 507, 418].map(httpFailure), [undefined, 'storage.auth', 'storage.denied', 'storage.not_found', 'storage.throttled', 'storage.unavailable', 'storage.throttled', 'storage.disk_full', 'storage.rejected'])
})

await t.test('the registry', async (c) => {
  for (const type of Object.keys(storageBackends)) {
    c.ok((backendTypes as readonly string[]).includes(type))
    c.throws(() => checkConfig(type, {}), { code: 'storage.config_invalid', kind: 'configuration', message: /is missing: expected/ }, type)
    c.throws(() => checkConfig(type, { nonsense: 1 }, { strict: true }), { code: 'storage.config_invalid', message: /nonsense: not a key/, hint: new RegExp(configKeys(type).join(', ')) }, type)
  }
  await c.rejects(openStorage('floppy', {}, { log, parallelUploads: 1, retryFor: 0 }), { code: 'storage.config_invalid', hint: /local, aws_s3/ })
  const checked = checkConfig('aws_s3', { bucket_name: 'b', access_key_id: 'id', secret_access_key: 'very-secret', prefix: '', region: null, project: 'of the application', force_path_style: 'true', object_lock_days: '7' })
  c.match(checked, { bucket_name: 'b', project: 'of the application', force_path_style: true, object_lock_days: 7 })
  c.notOk('prefix' in checked || 'region' in checked, 'empty is not given')
  c.ok(checked['secret_access_key'] instanceof Secret)
  c.equal((checkConfig('aws_s3', { ...checked })['secret_access_key'] as Secret).reveal(), 'very-secret', 'may be wrapped already')
  try {
    checkConfig('aws_s3', { bucket_name: 'b', access_key_id: 'id', secret_access_key: 'very-secret', object_lock_days: 'very-secret' })
    c.fail('not a number of days')
  } catch (error) {
    const { message, hint, details } = error as BackupdError
    c.match(message, /object_lock_days/)
    c.notMatch(JSON.stringify([message, hint, details]), /very-secret/)
  }
  c.throws(() => checkConfig('local', { base_path: 'relative' }), { message: /base_path is not valid: expected an absolute path/ })
})
