import type { Test } from 'tap'
import { BackupdError, messageOf } from '../../src/errors.js'
import { silentLog } from '../../src/log.js'
import { pieces } from '../../src/storage/ahead.js'
import { openStorage } from '../../src/storage/registry.js'
import { silence } from '../../src/storage/resume.js'
import type { BackendType, Storage } from '../../src/storage/storage.js'
import { within } from '../../src/storage/wait.js'
import { seeded, startProxy, type Faults, type Proxy } from '../servers/proxy.js'
import { bytes, digestOf } from './bytes.js'
import { freshFolder } from './storage.js'

/** One storage behind a network that can be broken. */
export interface FaultSubject {
  name: string
  type: BackendType
  /** Where the server listens on loopback. */
  port: number
  /** Configuration of a storage on `folder`, reached through `port`. */
  config(folder: string, port: number): Record<string, unknown>
  /** For a protocol that needs more than one port. Default: one proxy in front of `port`. */
  startProxy?: (seed: number) => Promise<Proxy>
  /** Bytes of a larger object, some chunks long. Default 20 MB. */
  size?: number
  /** Chunks of one object in flight. Default 3. */
  parallelUploads?: number
  /** Seeded rounds; BACKUPD_FAULT_ROUNDS overrides. Default 12. */
  rounds?: number
}

const signal = new AbortController().signal
// No operation of these tests may take longer, whatever happens to its connections.
const hang = 90_000

const bounded = async <T>(what: string, work: Promise<T>): Promise<T> => within(work, { ms: hang, timeout: () => new Error(`hang: ${what}`) })

const randomFaults = (random: () => number, size: number): Faults => {
  const kind = Math.floor(random() * 6)
  const direction = random() < 0.6 ? 'up' : 'down'
  const after = Math.floor(random() * random() * size * 1.1)
  const times = 1 + Math.floor(random() * 4)
  if (kind === 0) return { cut: { direction, after, how: 'reset', times } }
  if (kind === 1) return { cut: { direction, after, how: 'end', times } }
  if (kind === 2) return { cut: { direction, after, how: 'silence', times: Math.min(times, 2) } }
  if (kind === 3) return { resets: 0.05 + random() * 0.4 }
  if (kind === 4) return { latency: Math.floor(random() * 100), cut: { direction, after, how: 'reset', times } }
  // Nearly for ever: without progress the time for retries is over long before, and with a little progress each time it is no hang but slow.
  return { cut: { direction, after, how: random() < 0.5 ? 'reset' : 'end', times: 40 } }
}

/** What must be true of every remote storage on a bad network: whole success or honest failure, never half an object, never a hang. */
export const faultSuite = async (t: Test, subject: FaultSubject): Promise<void> => {
  const size = subject.size ?? 20_000_000
  const rounds = Number(process.env['BACKUPD_FAULT_ROUNDS'] ?? subject.rounds ?? 12)
  const before = silence.limit
  const { enough } = pieces

  const withProxy = async (run: (around: { proxy: Proxy; through: Storage; direct: Storage }) => Promise<void>, { retryFor = 20_000, seed = 1, silent = 2_000 } = {}): Promise<void> => {
    silence.limit = silent
    // On loopback no connection is slow enough for several at once, which have to be tried all the same.
    pieces.enough = seed % 3 === 0 ? enough : Infinity
    const proxy = await (subject.startProxy?.(seed) ?? startProxy({ port: subject.port, seed }))
    const folder = freshFolder()
    const context = { log: silentLog(), parallelUploads: subject.parallelUploads ?? 3 }
    const through = await openStorage(subject.type, subject.config(folder, proxy.port), { ...context, retryFor })
    const direct = await openStorage(subject.type, subject.config(folder, subject.port), { ...context, retryFor: 20_000 })
    try {
      await run({ proxy, through, direct })
    } finally {
      await proxy.stop()
      await through.close()
      await direct.close()
    }
  }

  await t.test(`${subject.name}: storage on a bad network`, async (s) => {
    s.teardown(() => {
      silence.limit = before
      pieces.enough = enough
    })

    const wrote = async (c: Test, faults: Faults, least = 1): Promise<void> => withProxy(async ({ proxy, through, direct }) => {
      proxy.set(faults)
      const result = await bounded('write', through.write('object', bytes(1, size), { signal }))
      c.strictSame(result, { size })
      c.ok(proxy.hurt() >= least, 'the fault was met')
      c.strictSame(await digestOf(direct.read('object', { signal })), await digestOf(bytes(1, size)))
    })

    for (const how of ['reset', 'end', 'silence'] as const) {
      await s.test(`writes on after one connection: ${how}`, async (c) => wrote(c, { cut: { direction: 'up', after: Math.floor(size / 6), how, times: 1 } }))
      await s.test(`writes on after a lost answer: ${how}`, async (c) => wrote(c, { cut: { direction: 'down', after: 0, how, times: 1 } }))
      await s.test(`reads on after two connections: ${how}`, async (c) => withProxy(async ({ proxy, through, direct }) => {
        await direct.write('object', bytes(2, size), { signal })
        proxy.set({ cut: { direction: 'down', after: Math.floor(size / 7), how, times: 2 } })
        c.strictSame(await bounded('read', digestOf(through.read('object', { signal }))), await digestOf(bytes(2, size)))
        c.equal(proxy.hurt(), 2)
      }))
    }

    await s.test('gives up on a server that stays silent, saying so', async (c) => withProxy(async ({ proxy, through, direct }) => {
      await direct.write('object', bytes(2, size), { signal })
      proxy.set({ cut: { direction: 'down', after: 0, how: 'silence' } })
      const start = Date.now()
      await c.rejects(bounded('write', through.write('other', bytes(1, size), { signal })), { code: 'storage.timeout' })
      await c.rejects(bounded('read', digestOf(through.read('object', { signal }))), { code: 'storage.timeout' })
      await c.rejects(bounded('stat', through.stat('object', { signal })), { code: 'storage.timeout' })
      c.ok(Date.now() - start < hang, 'in time')
      c.equal(await direct.stat('other', { signal }), undefined)
    }, { retryFor: 1_000 }))

    await s.test('a read that always ends early is no success', async (c) => withProxy(async ({ proxy, through, direct }) => {
      await direct.write('object', bytes(2, size), { signal })
      proxy.set({ cut: { direction: 'down', after: 1_500, how: 'end' } })
      await c.rejects(bounded('read', digestOf(through.read('object', { signal }))), { name: 'BackupdError', retryable: true })
    }, { retryFor: 0 }))

    await s.test('says when nothing listens', async (c) => withProxy(async ({ proxy, through }) => {
      await proxy.stop()
      await c.rejects(bounded('write', through.write('object', bytes(1, 10), { signal })), { code: 'storage.unreachable' })
      const steps = await bounded('probe', through.probe({ signal }))
      c.match(steps[0], { name: 'connect', outcome: 'failed', code: 'storage.unreachable' })
      c.strictSame(steps.slice(1).map(({ outcome }) => outcome), ['skipped', 'skipped', 'skipped', 'skipped'])
    }, { retryFor: 0 }))

    await s.test('200 ms of latency', async (c) => withProxy(async ({ proxy, through }) => {
      proxy.set({ latency: 200 })
      await bounded('write', through.write('object', bytes(1, 1_000_000), { signal }))
      c.strictSame(await bounded('read', digestOf(through.read('object', { signal }))), await digestOf(bytes(1, 1_000_000)))
      // Some protocols log in with a dozen round trips before the first byte of an object.
    }, { silent: 20_000 }))

    await s.test('1 MB/s', async (c) => withProxy(async ({ proxy, through }) => {
      proxy.set({ rate: 1_000_000 })
      await bounded('write', through.write('object', bytes(1, 4_000_000), { signal }))
      c.strictSame(await bounded('read', digestOf(through.read('object', { signal }))), await digestOf(bytes(1, 4_000_000)))
      // What is in the buffers of the kernel looks like silence.
    }, { silent: 20_000 }))

    await s.test('an abort ends a write that waits for a silent server', async (c) => withProxy(async ({ proxy, through, direct }) => {
      proxy.set({ cut: { direction: 'up', after: Math.floor(size / 4), how: 'silence' } })
      const controller = new AbortController()
      setTimeout(() => controller.abort(new BackupdError('test.stop', 'enough')), 500)
      await c.rejects(bounded('write', through.write('object', bytes(1, size), { signal: controller.signal })), { code: 'test.stop' })
      c.equal(await direct.stat('object', { signal }), undefined)
    }))

    await s.test(`${rounds} seeded rounds`, async (c) => {
      const first = Number(process.env['BACKUPD_FAULT_SEED'] ?? 1)
      for (let seed = first; seed < first + rounds; seed += 1) {
        const random = seeded(seed)
        const length = Math.floor(random() < 0.3 ? random() * 200_000 : random() * size)
        await withProxy(async ({ proxy, through, direct }) => {
          const faults = randomFaults(random, length)
          const round = `seed ${seed}, ${length} bytes, ${JSON.stringify(faults)}`
          const wanted = await digestOf(bytes(seed, length))
          proxy.set({ ...faults, ...(faults.cut === undefined ? {} : { cut: { ...faults.cut } }) })
          let failed: unknown
          try {
            await bounded('write', through.write('object', bytes(seed, length), { signal }))
          } catch (error) {
            failed = error
          }
          if (failed !== undefined && !(failed instanceof BackupdError && failed.code.startsWith('storage.'))) c.fail(`${round}: ${messageOf(failed)}`, { failed })
          const found = await direct.stat('object', { signal })
          if (failed === undefined || found !== undefined) c.strictSame(await digestOf(direct.read('object', { signal })), wanted, `whole: ${round}`)
          await direct.sweep({ signal, olderThan: new Date(Date.now() + 3_600_000) })
          const again = await direct.sweep({ signal, olderThan: new Date(Date.now() + 3_600_000) })
          c.strictSame(again, { removed: [], remaining: [] }, `swept: ${round}`)
          await direct.write('object', bytes(seed, length), { signal })
          proxy.set({ ...faults, ...(faults.cut === undefined ? {} : { cut: { ...faults.cut } }) })
          try {
            c.strictSame(await bounded('read', digestOf(through.read('object', { signal }))), wanted, `read: ${round}`)
          } catch (error) {
            c.ok(error instanceof BackupdError && error.code.startsWith('storage.'), `honest failure: ${round}: ${messageOf(error)}`)
          }
        }, { seed, retryFor: random() < 0.3 ? 0 : 6_000 })
      }
    })
  })
}
