import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import t from 'tap'
import { BackupdError } from '../../src/errors.js'
import { abortable, createReader, ordered } from '../../src/storage/bytes.js'
import { collect, failureOf, inPieces, never, noise, watched } from '../conformance/streams.js'

async function* numbers(count: number): AsyncGenerator<number> {
  for (let index = 0; index < count; index += 1) yield index
}

t.test('results come in order, with no more at work than the window', async (t) => {
  await t.resolves(fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 8 }), { maxLength: 25 }), fc.integer({ min: 1, max: 6 }), async (times, window) => {
      let [running, most] = [0, 0]
      const results: number[] = []
      const task = async (index: number): Promise<number> => {
        most = Math.max(most, (running += 1))
        await sleep(times[index])
        running -= 1
        return index
      }
      for await (const result of ordered(numbers(times.length), window, task)) results.push(result)
      return results.every((result, index) => result === index) && results.length === times.length && most <= window && running === 0
    }),
    { numRuns: 25 },
  ), 'for every input')
})

t.test('the first failure in order ends it, and nothing is left at work', async (t) => {
  let running = 0
  const error = await failureOf(async () => {
    const task = async (index: number): Promise<number> => {
      running += 1
      await sleep(index === 4 ? 1 : 20)
      running -= 1
      if (index >= 3) throw new BackupdError(`failed.${index}`, 'failed')
      return index
    }
    for await (const result of ordered(numbers(100), 3, task)) t.ok(result < 3)
  })
  t.equal(error.code, 'failed.3')
  t.equal(running, 0)
})

t.test('an abort ends a read that waits, with the reason given', async (t) => {
  const { source, closed } = watched([noise(5)], 'wait')
  const controller = new AbortController()
  const reason = new BackupdError('lease.lost', 'the lease was lost')
  setTimeout(() => controller.abort(reason), 50)
  t.equal(await failureOf(() => collect(abortable(source, controller.signal))), reason)
  t.ok(closed())
})

t.test('an endless stream leaves no trace on the signal', async (t) => {
  const { signal } = new AbortController()
  let listeners = 0
  const add = signal.addEventListener.bind(signal)
  signal.addEventListener = ((...args: Parameters<typeof add>) => {
    listeners += 1
    add(...args)
  }) as typeof add
  let count = 0
  for await (const number of abortable(numbers(10_000), signal)) count += number < 0 ? 0 : 1
  t.equal(count, 10_000)
  t.equal(listeners, 1)
})

t.test('a reader takes a stream apart by any lengths', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 500 }), fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }), fc.array(fc.integer({ min: 0, max: 90 }), { maxLength: 40 }), async (bytes, sizes, lengths) => {
      const plain = Buffer.from(bytes)
      const reader = createReader(inPieces(plain, sizes))
      let at = 0
      for (const length of lengths) {
        const got = await reader.read(length)
        if (!got.equals(plain.subarray(at, at + length))) return false
        at = Math.min(plain.length, at + length)
        if ((await reader.atEnd()) !== (at === plain.length)) return false
      }
      return true
    }),
  )
  const { source, closed } = watched([noise(100)], 'wait')
  const reader = createReader(source)
  t.equal((await reader.read(10)).length, 10)
  await reader.close()
  t.ok(closed())
  t.ok(await collect(abortable(inPieces(noise(3)), never)))
})
