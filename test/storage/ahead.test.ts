import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { silentLog } from '../../src/log.js'
import { pieces, readAhead } from '../../src/storage/ahead.js'
import { storageError, unknownFailure } from '../../src/storage/failure.js'
import type { OpenRange, Range } from '../../src/storage/resume.js'
import { bytes, collect } from '../conformance/bytes.js'

const content = await collect(bytes(7, 1_000_003))
const before = { ...pieces }
t.beforeEach(() => void Object.assign(pieces, {
  ...before, size: 10_000, least: 10_000, largest: 10_000, memory: 80_000, first: { bytes: 4_000, ms: 100 }, again: { bytes: 40_000, ms: 1000 },
}))
t.teardown(() => void Object.assign(pieces, before))

interface Service {
  /** Milliseconds before each block. */
  slow?: number | (() => number)
  /** Whether it tells the version. */
  tagged?: boolean
  fail?: (range: Range, asked: number) => void
}

/** A service with one object, and what it was asked. */
const service = ({ slow = 0, tagged = true, fail }: Service = {}) => {
  const tag = tagged ? 'v1' : undefined
  const asked: { range: Range; tag: string | undefined }[] = []
  let flying = 0
  let most = 0
  let left = 0
  const open = async (range: Range, wanted: string | undefined, signal: AbortSignal): Promise<OpenRange<string>> => {
    asked.push({ range, tag: wanted })
    fail?.(range, asked.length)
    if (wanted !== undefined && wanted !== tag) throw storageError('storage.changed', 'replaced')
    flying += 1
    most = Math.max(most, flying)
    const end = Math.min(range.end ?? Infinity, content.length)
    const body = async function* () {
      try {
        for (let at = range.offset; at < end; at += 4_000) {
          const pause = typeof slow === 'number' ? slow : slow()
          if (pause > 0) await delay(pause, undefined, { signal })
          yield content.subarray(at, Math.min(end, at + 4_000))
        }
      } finally {
        flying -= 1
        left += 1
      }
    }
    return { body: body(), size: content.length, tag }
  }
  const read = (parallel: number, more: { offset?: number; length?: number; signal?: AbortSignal } = {}) => readAhead<string>({
    key: 'object', retryFor: 0, signal: new AbortController().signal, log: silentLog(), open, classify: unknownFailure, ...more,
  }, parallel)
  return { asked, read, most: () => most, flying: () => flying, left: () => left }
}

t.test('slow connections are used side by side, and the bytes come in order', async (t) => {
  const { read, most, asked, flying } = service({ slow: 1 })
  t.ok((await collect(read(4))).equals(content))
  t.equal(most(), 4)
  t.equal(asked.length, 101)
  t.strictSame([...new Set(asked.slice(1).map(({ tag }) => tag))], ['v1'], 'of one version')
  t.equal(flying(), 0)
})

t.test('a fast one is left alone, and judged again after a stretch', async (t) => {
  pieces.enough = 0
  const { read, most, asked } = service()
  t.ok((await collect(read(4))).equals(content))
  t.equal(most(), 1)
  t.strictSame(asked.slice(0, 3).map(({ range }) => range), [{ offset: 0, end: 10_000 }, { offset: 10_000, end: 50_000 }, { offset: 50_000, end: 90_000 }])
})

t.test('ranges, one at a time, and no version to ask for', async (t) => {
  for (const [offset, length] of [[0, 5], [123_456, 100_000], [999_000, 50_000], [1_000_003, 10], [2_000_000, 10], [5, 0]] as const) {
    const wanted = content.subarray(offset, offset + length)
    t.ok((await collect(service({ slow: 1 }).read(3, { offset, length }))).equals(wanted), `${offset} ${length}`)
  }
  const one = service()
  t.ok((await collect(one.read(1))).equals(content))
  t.equal(one.asked.length, 1, 'one request')
  const untagged = service({ slow: 1, tagged: false })
  t.ok((await collect(untagged.read(4))).equals(content))
  t.equal(untagged.most(), 1)
})

t.test('no more than there may be in memory', async (t) => {
  const { read, most, left } = service({ slow: 1 })
  const iterator = read(64)
  const taken = []
  for await (const block of iterator) {
    taken.push(block)
    if (taken.length === 6) break
  }
  t.ok(most() <= pieces.most, `${most()} in flight`)
  await delay(50)
  t.ok(left() <= pieces.memory / pieces.size + 3, `and nothing is fetched for nobody: ${left()}`)

  // Where the memory is less than the ranges that may be in flight, it counts.
  pieces.memory = 30_000
  const small = service({ slow: 1 })
  t.ok((await collect(small.read(64))).equals(content))
  t.ok(small.most() <= 4, `${small.most()} in flight`)
})

t.test('a slow connection is seen early: its piece goes on beside the others', async (t) => {
  Object.assign(pieces, { size: 100_000, first: { bytes: 20_000, ms: 100 } })
  const { read, asked, flying } = service({ slow: 1 })
  const iterator = read(4)
  let got = 0
  for await (const block of iterator) {
    got += block.length
    if (got >= 40_000) break
  }
  t.strictSame(asked.slice(0, 2).map(({ range }) => range), [{ offset: 0, end: 100_000 }, { offset: 100_000, end: 110_000 }])
  t.ok(asked.length >= 4)
  await delay(20)
  t.equal(flying(), 0)
})

t.test('one that becomes slow in a long range is cut there', async (t) => {
  let slow = 0
  pieces.again = { bytes: 500_000, ms: 20 }
  const { read, asked, most } = service({ slow: () => slow })
  const got: Uint8Array[] = []
  let length = 0
  for await (const block of read(4)) {
    got.push(block)
    length += block.length
    if (length > 100_000) slow = 2
  }
  t.ok(Buffer.concat(got).equals(content))
  t.strictSame(asked[1]?.range, { offset: 10_000, end: 510_000 })
  t.ok((asked[2]?.range.offset ?? 0) > 100_000 && (asked[2]?.range.offset ?? 0) < 400_000, String(asked[2]?.range.offset))
  t.equal(most(), 4)
})

t.test('pieces get smaller towards the end', async (t) => {
  Object.assign(pieces, { least: 5_000, largest: 100_000, memory: 1_000_000 })
  const { read, asked } = service({ slow: 1 })
  t.ok((await collect(read(4))).equals(content))
  const sizes = asked.slice(1).map(({ range }) => (range.end ?? 0) - range.offset)
  t.equal(sizes[0], 100_000)
  t.equal(sizes.at(-2), 5_000)
  t.strictSame(sizes, [...sizes].sort((a, b) => b - a))
})

t.test('a reader that stops, is stopped, or meets an error leaves nothing in flight', async (t) => {
  const stopped = service({ slow: 1 })
  const controller = new AbortController()
  const reading = collect(stopped.read(4, { signal: controller.signal }))
  await delay(40)
  controller.abort(new Error('enough'))
  await t.rejects(reading, { code: 'cancelled' })
  await delay(20)
  t.equal(stopped.flying(), 0)

  const changed = service({ slow: 1, fail: (_, asked) => { if (asked > 20) throw storageError('storage.changed', 'replaced') } })
  await t.rejects(collect(changed.read(4)), { code: 'storage.changed' })
  await delay(20)
  t.equal(changed.flying(), 0)
})
