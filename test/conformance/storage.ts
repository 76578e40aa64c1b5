import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import { BackupdError } from '../../src/errors.js'
import { silentLog, type Log } from '../../src/log.js'
import { openStorage } from '../../src/storage/registry.js'
import type { BackendType, Storage, StoredObject } from '../../src/storage/storage.js'
import { bytes, collect, digestOf, failing, stalling } from './bytes.js'

/** One storage on one server, for the suites. */
export interface StorageSubject {
  name: string
  type: BackendType
  /** Configuration of a storage on `folder`, which may have slashes at its ends; two folders are two storages in one bucket. Plain text, as it would be in the catalog. */
  config(folder: string): Record<string, unknown>
  /** Bytes of one chunk of an upload, whose neighbourhood is tried. Default 8 MiB. */
  chunk?: number
  /** Objects in the listing test. Default 1,050. */
  many?: number
  /** Chunks of one object in flight. Default 3. */
  parallelUploads?: number
  /** Bytes that the killed writer sends before it is killed. Default three chunks. */
  killedAfter?: number
  /** A failed write leaves something invisible that `sweep` removes (uncommitted blocks that the service has no request to drop). */
  leavesInvisible?: boolean
  /** The service removes what a killed process left by itself, and has no way to list it. */
  sweepsItself?: boolean
}

const MiB = 1024 * 1024

/** Keys that break careless quoting. */
export const awkwardKeys = [
  'with space/and more.txt', 'ünïcödé/日本語/файл.bin', 'emoji-😀.bin', 'plus+and%25percent%2F.bin', 'amp&query?x=1#fragment;semi=1',
  'quote"apostrophe\'backtick`.bin', 'a/b/c/d/e/f/g.bin', '~tilde!star*(paren)[bracket]{brace}', 'comma,colon:at@dollar$caret^pipe|less<greater>', '.hidden/.file', 'e\u0301-combining',
]

const signal = new AbortController().signal
let folders = 0

/** A folder that no other test of this or another process uses. */
export const freshFolder = (): string => `${process.pid}-${Date.now().toString(36)}-${(folders += 1)}`

export interface OpenOptions {
  folder?: string
  parallelUploads?: number
  retryFor?: number
  log?: Log
}

const listed = async (storage: Storage, prefix = ''): Promise<StoredObject[]> => {
  const found: StoredObject[] = []
  for await (const object of storage.list(prefix, { signal })) found.push(object)
  return found.sort((a, b) => (a.key < b.key ? -1 : 1))
}

const keysOf = async (storage: Storage, prefix = ''): Promise<string[]> => (await listed(storage, prefix)).map(({ key }) => key)

const future = (): Date => new Date(Date.now() + 3_600_000)

/** Runs `work` over `items`, `width` at a time. */
export const inParallel = async <T>(items: readonly T[], width: number, work: (item: T) => Promise<unknown>): Promise<void> => {
  const queue = [...items]
  await Promise.all(Array.from({ length: width }, async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item)
  }))
}

/** What must be true of every storage. No test is skipped; a subject says where its service differs and why. */
export const storageSuite = async (t: Test, subject: StorageSubject): Promise<void> => {
  const chunk = subject.chunk ?? 8 * MiB
  const open = async ({ folder = freshFolder(), parallelUploads = subject.parallelUploads ?? 3, retryFor = 10_000, log = silentLog() }: OpenOptions = {}): Promise<Storage> =>
    openStorage(subject.type, subject.config(folder), { log, parallelUploads, retryFor })

  const absent = async (c: Test, storage: Storage, key: string): Promise<void> => {
    c.equal(await storage.stat(key, { signal }), undefined, 'no object of that key')
    c.strictSame(await keysOf(storage), [], 'nothing is listed')
    const swept = await storage.sweep({ signal, olderThan: future() })
    c.strictSame(swept.remaining, [], 'nothing that cannot be swept')
    if (subject.leavesInvisible !== true) c.strictSame(swept.removed, [], 'nothing was left to sweep')
  }

  await t.test(`${subject.name}: storage`, async (s) => {
    await s.test('stores and gives back any size', async (c) => {
      const storage = await open()
      c.equal(storage.type, subject.type)
      const sizes = [0, 1, 65_536, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk + 12_345, 50_000_000]
      for (const size of sizes) {
        const key = `sizes/${size}`
        c.strictSame(await storage.write(key, bytes(size, size), { signal }), { size }, `${size} bytes written`)
        c.strictSame(await digestOf(storage.read(key, { signal })), await digestOf(bytes(size, size)), `${size} bytes read back`)
        const found = await storage.stat(key, { signal })
        c.equal(found?.size, size)
        c.equal(found?.key, key)
        if (storage.capabilities.exactTimes) c.ok(Math.abs((found?.modifiedAt?.getTime() ?? 0) - Date.now()) < 600_000, 'modified just now')
      }
      c.strictSame(new Map((await listed(storage)).map(({ key, size }) => [key, size])), new Map(sizes.map((size) => [`sizes/${size}`, size]).sort() as [string, number][]))
      c.match(storage.location('a/b'), /^[a-z0-9]+:\/\/.*a\/b$/)
      await storage.close()
    })

    await s.test('replaces', async (c) => {
      const storage = await open()
      for (const [seed, size] of [[1, 2 * chunk + 1], [2, 10], [3, 0], [4, chunk]] as const) {
        await storage.write('same', bytes(seed, size), { signal })
        c.strictSame(await digestOf(storage.read('same', { signal })), await digestOf(bytes(seed, size)))
      }
      c.strictSame(await keysOf(storage), ['same'])
      await storage.close()
    })

    await s.test('takes awkward keys', async (c) => {
      const storage = await open({ folder: `${freshFolder()}/with space ü+%` })
      for (const [index, key] of awkwardKeys.entries()) await storage.write(key, bytes(index, index + 1), { signal })
      c.strictSame(await keysOf(storage), [...awkwardKeys].sort())
      for (const [index, key] of awkwardKeys.entries()) {
        c.strictSame(await collect(storage.read(key, { signal })), await collect(bytes(index, index + 1)), key)
        c.equal((await storage.stat(key, { signal }))?.size, index + 1, key)
        c.strictSame(await keysOf(storage, key), [key])
        await storage.remove(key, { signal })
      }
      c.strictSame(await keysOf(storage), [])
      await storage.close()
    })

    await s.test('refuses keys that could escape', async (c) => {
      const storage = await open()
      const refused = ['', '/', '/absolute', 'a//b', 'a/', '..', '../x', 'a/../../x', 'a/./b', 'nul\0', 'line\nbreak', '\ud800', 'x'.repeat(1000), '.backupd-partial/x']
      for (const key of refused) {
        const attempts: (() => Promise<unknown>)[] = [
          async () => storage.write(key, bytes(1, 1), { signal }), async () => collect(storage.read(key, { signal })),
          async () => storage.stat(key, { signal }), async () => storage.remove(key, { signal }),
        ]
        for (const attempt of attempts) await c.rejects(async () => void (await attempt()), { code: 'storage.key_invalid' }, JSON.stringify(key.slice(0, 20)))
      }
      await c.rejects(keysOf(storage, '../'), { code: 'storage.key_invalid' })
      await storage.close()
    })

    await s.test('keeps two storages of one place apart, and takes slashes around the prefix', async (c) => {
      const folder = freshFolder()
      const [plain, slashed, longer, inner] = await Promise.all([`${folder}/a`, `/${folder}/a/`, `${folder}/ab`, `${folder}/c/d`].map((name) => open({ folder: name })))
      if (plain === undefined || slashed === undefined || longer === undefined || inner === undefined) throw new Error('four were opened')
      await plain.write('x/one', bytes(1, 1), { signal })
      await longer.write('x/two', bytes(1, 2), { signal })
      await inner.write('three', bytes(1, 3), { signal })
      c.strictSame(await keysOf(plain), ['x/one'])
      c.strictSame(await keysOf(slashed), ['x/one'], 'the same place')
      c.strictSame(await keysOf(longer), ['x/two'])
      c.strictSame(await keysOf(inner), ['three'])
      await slashed.remove('x/one', { signal })
      c.strictSame([await keysOf(plain), await keysOf(longer)], [[], ['x/two']])
      await Promise.all([plain, slashed, longer, inner].map((storage) => storage.close()))
    })

    await s.test('lists any number', async (c) => {
      const storage = await open()
      const many = subject.many ?? 1050
      const names = Array.from({ length: many }, (_, index) => `many/${String(index).padStart(5, '0')}`)
      await inParallel([...names, 'manyfold', 'other/1'], 16, async (name) => storage.write(name, bytes(1, 1), { signal }))
      c.strictSame(await keysOf(storage, 'many/'), names)
      c.equal((await keysOf(storage)).length, many + 2)
      c.strictSame(await keysOf(storage, 'many/0001'), names.slice(10, 20))
      c.equal((await keysOf(storage, 'man')).length, many + 1, 'a prefix may end inside a name')
      c.strictSame(await keysOf(storage, 'many/00001/'), [])
      c.strictSame(await keysOf(storage, 'none/'), [])
      for await (const object of storage.list('many/', { signal })) {
        c.equal(object.size, 1, 'stopping early is fine')
        break
      }
      await inParallel(names, 16, async (name) => storage.remove(name, { signal }))
      c.strictSame(await keysOf(storage), ['manyfold', 'other/1'])
      await storage.close()
    })

    await s.test('reads ranges', async (c) => {
      const storage = await open()
      const whole = await collect(bytes(9, 1_000_000))
      await storage.write('ranges', bytes(9, whole.length), { signal })
      await storage.write('empty', bytes(9, 0), { signal })
      const ranges = [[0, 1], [0, 1_000_000], [999_999, 1], [500_000, 100], [1, 999_999], [0, 2_000_000], [999_990, 100], [0, 0], [10, 0], [1_000_000, 10], [2_000_000, 10]] as const
      for (const [offset, length] of ranges) {
        const got = await collect(storage.read('ranges', { offset, length, signal }))
        c.ok(got.equals(whole.subarray(offset, offset + length)), `${length} from ${offset}`)
      }
      c.ok((await collect(storage.read('ranges', { offset: 999_000, signal }))).equals(whole.subarray(999_000)))
      c.equal((await collect(storage.read('ranges', { offset: 1_000_000, signal }))).length, 0)
      c.equal((await collect(storage.read('empty', { offset: 0, length: 5, signal }))).length, 0)
      c.equal((await collect(storage.read('empty', { offset: 3, signal }))).length, 0)
      await storage.close()
    })

    await s.test('says what is missing', async (c) => {
      const storage = await open()
      await c.rejects(collect(storage.read('nothing/here', { signal })), { code: 'storage.not_found', kind: 'notFound' })
      await c.rejects(collect(storage.read('nothing/here', { offset: 10, length: 10, signal })), { code: 'storage.not_found' })
      c.equal(await storage.stat('nothing/here', { signal }), undefined)
      await storage.remove('nothing/here', { signal })
      c.strictSame(await keysOf(storage), [])
      c.strictSame(await storage.sweep({ signal, olderThan: future() }), { removed: [], remaining: [] })
      await storage.write('folder/object', bytes(1, 1), { signal })
      await c.rejects(collect(storage.read('folder', { signal })), { code: 'storage.not_found' })
      c.equal(await storage.stat('folder', { signal }), undefined, 'a folder is no object')
      await storage.remove('folder', { signal })
      c.strictSame(await keysOf(storage), ['folder/object'])
      await storage.close()
    })

    await s.test('a source that fails leaves nothing', async (c) => {
      for (const size of [0, 100, chunk, 3 * chunk + 5]) {
        const storage = await open()
        const error = new BackupdError('test.source', `broken after ${size} bytes`)
        await c.rejects(storage.write('deep/er/key', failing(1, size, error), { signal }), { code: 'test.source', message: error.message })
        await absent(c, storage, 'deep/er/key')
        await storage.close()
      }
    })

    await s.test('a failed replacement leaves the old object', async (c) => {
      const storage = await open()
      await storage.write('kept', bytes(1, 1000), { signal })
      for (const size of [10, 2 * chunk + 5]) {
        await c.rejects(storage.write('kept', failing(2, size, new BackupdError('test.source', 'broken')), { signal }), { code: 'test.source' })
        c.strictSame(await digestOf(storage.read('kept', { signal })), await digestOf(bytes(1, 1000)))
      }
      c.strictSame(await keysOf(storage), ['kept'])
      await storage.close()
    })

    await s.test('an aborted write leaves nothing and lets go of its source', async (c) => {
      for (const size of [0, 10, 3 * chunk]) {
        const storage = await open()
        const controller = new AbortController()
        const { source, reached, closed } = stalling(1, size)
        const written = storage.write('aborted', source, { signal: controller.signal })
        const outcome = c.rejects(written, { code: 'test.stop' })
        await reached
        const start = Date.now()
        controller.abort(new BackupdError('test.stop', 'enough'))
        await outcome
        c.ok(Date.now() - start < 10_000, 'at once')
        c.ok(closed(), 'the source was closed')
        await absent(c, storage, 'aborted')
        await c.rejects(storage.write('aborted', bytes(1, 1), { signal: controller.signal }), { code: 'test.stop' })
        await c.rejects(storage.write('aborted', bytes(1, 1), { signal: AbortSignal.abort() }), { code: 'cancelled' })
        await storage.close()
      }
    })

    await s.test('a read can be aborted or given up', async (c) => {
      const storage = await open()
      await storage.write('long', bytes(1, 3 * chunk), { signal })
      const controller = new AbortController()
      await c.rejects(async () => {
        for await (const block of storage.read('long', { signal: controller.signal })) {
          if (block.length >= 0) controller.abort(new BackupdError('test.stop', 'enough'))
        }
      }, { code: 'test.stop' })
      for (let round = 0; round < 30; round += 1) for await (const _ of storage.read('long', { signal })) break
      c.strictSame(await digestOf(storage.read('long', { signal })), await digestOf(bytes(1, 3 * chunk)), 'still works after many readers gave up')
      await storage.close()
    })

    await s.test('works on several objects at once', async (c) => {
      const storage = await open()
      const names = Array.from({ length: 6 }, (_, index) => `at-once/${index}`)
      await Promise.all(names.map((name, index) => storage.write(name, bytes(index, chunk + index * 1_000_000), { signal })))
      await Promise.all(names.map(async (name, index) => {
        c.strictSame(await digestOf(storage.read(name, { signal })), await digestOf(bytes(index, chunk + index * 1_000_000)), name)
      }))
      await storage.close()
    })

    await s.test('two writers of one key: one of them wins whole', async (c) => {
      const storage = await open()
      await Promise.all([1, 2].map((seed) => storage.write('contested', bytes(seed, chunk + 7), { signal })))
      const got = await digestOf(storage.read('contested', { signal }))
      const wanted = await Promise.all([1, 2].map((seed) => digestOf(bytes(seed, chunk + 7))))
      c.ok(wanted.some(({ sha256 }) => sha256 === got.sha256))
      await storage.close()
    })

    await s.test('can be probed', async (c) => {
      const storage = await open()
      const steps = await storage.probe({ signal })
      c.strictSame(steps.map(({ name, outcome }) => [name, outcome]), ['connect', 'write', 'read', 'list', 'remove'].map((name) => [name, 'ok']), JSON.stringify(steps))
      c.strictSame(await keysOf(storage), [])
      await c.rejects(storage.probe({ signal: AbortSignal.abort() }), { code: 'cancelled' })
      const free = await storage.freeSpace?.({ signal })
      c.ok(free === undefined || free > 0)
      await storage.close()
    })

    await s.test('memory does not grow with the object', async (c) => {
      const folder = freshFolder()
      const size = 300_000_000
      const writer = spawn(process.execPath, [...process.execArgv, fileURLToPath(new URL('./streaming-writer.ts', import.meta.url))], {
        env: { ...process.env, BACKUPD_TEST_WRITER: JSON.stringify({ type: subject.type, config: subject.config(folder), size, parallelUploads: subject.parallelUploads ?? 3 }) },
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const said = await collect(writer.stdout as AsyncIterable<Uint8Array>)
      const { grown, read } = JSON.parse(said.toString()) as { grown: number; read: unknown }
      c.ok(grown < 120_000_000, `grown by ${Math.round(grown / 1e6)} MB for ${size / 1e6} MB`)
      c.comment(`grown by ${Math.round(grown / 1e6)} MB`)
      c.strictSame(read, await digestOf(bytes(2, size)))
      const storage = await open({ folder })
      for (const key of ['warm', 'large']) await storage.remove(key, { signal })
      await storage.close()
    })

    await s.test('what a killed process leaves is no object, and is swept', async (c) => {
      const folder = freshFolder()
      const storage = await open({ folder })
      const size = subject.killedAfter ?? 3 * chunk
      const writer = spawn(process.execPath, [...process.execArgv, fileURLToPath(new URL('./killed-writer.ts', import.meta.url))], {
        env: { ...process.env, BACKUPD_TEST_WRITER: JSON.stringify({ type: subject.type, config: subject.config(folder), key: 'killed', size, parallelUploads: subject.parallelUploads ?? 3 }) },
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const exited = once(writer, 'exit')
      const said = await Promise.race([once(writer.stdout, 'data').then(String), exited.then(() => 'exited before its time')])
      writer.kill('SIGKILL')
      await exited
      c.equal(said, 'written\n')
      await delay(200)
      c.equal(await storage.stat('killed', { signal }), undefined)
      c.strictSame(await keysOf(storage), [])
      c.strictSame(await storage.sweep({ signal, olderThan: new Date(Date.now() - 3_600_000) }), { removed: [], remaining: [] }, 'what is young stays')
      const swept = await storage.sweep({ signal, olderThan: future() })
      c.strictSame(swept.remaining, [])
      if (subject.sweepsItself !== true) c.ok(swept.removed.length > 0, 'something was swept')
      c.strictSame(await storage.sweep({ signal, olderThan: future() }), { removed: [], remaining: [] }, 'nothing is left')
      c.strictSame(await keysOf(storage), [])
      await storage.close()
    })
  })
}

