import t from 'tap'
import { BackupdError } from '../../src/errors.js'
import { createThrottle } from '../../src/pipeline/throttle.js'
import { collect, failureOf, inPieces, never, noise, watched } from '../conformance/streams.js'

const timed = async (call: () => Promise<unknown>): Promise<number> => {
  const started = performance.now()
  await call()
  return (performance.now() - started) / 1000
}

const within = (seconds: number, expected: number): boolean => Math.abs(seconds - expected) <= 0.1 * expected

t.test('the rate is held, slow or fast, in small chunks or large', async (t) => {
  for (const [mbps, bytes, sizes] of [[0.1, 30_000, [30_000]], [8, 2_500_000, [1000, 17]], [80, 25_000_000, [4 * 1024 * 1024]], [800, 200_000_000, [64 * 1024]]] as const) {
    const expected = (bytes * 8) / 1e6 / mbps
    const plain = Buffer.alloc(bytes, 'x')
    let passed = 0
    const seconds = await timed(async () => {
      for await (const piece of createThrottle(mbps).stage(inPieces(plain, sizes), never)) passed += piece.length
    })
    t.equal(passed, bytes)
    t.ok(within(seconds, expected), `${mbps} Mbit/s: ${seconds.toFixed(2)} s where ${expected.toFixed(2)} were due`)
  }
})

t.test('several streams share one rate, and their bytes are as they were', async (t) => {
  const throttle = createThrottle(16)
  const plains = [noise(2_000_000), noise(1_000_000), noise(1_000_000)]
  const seconds = await timed(async () => {
    const out = await Promise.all(plains.map((plain) => collect(throttle.stage(inPieces(plain), never))))
    t.ok(out.every((bytes, index) => bytes.equals(plains[index] as Buffer)))
  })
  t.ok(within(seconds, 2), `${seconds.toFixed(2)} s where 2 were due`)
})

t.test('a large chunk does not leave in one burst', async (t) => {
  const arrived: number[] = []
  const started = performance.now()
  for await (const piece of createThrottle(8).stage(inPieces(noise(1_000_000), [1_000_000]), never)) {
    t.ok(piece.length <= 100_000)
    arrived.push(performance.now() - started)
  }
  const half = arrived[Math.floor(arrived.length / 2)] as number
  t.ok(half > 400 && half < 650, `half of it after ${half.toFixed(0)} ms of 1000`)
})

t.test('a pause earns no burst', async (t) => {
  const throttle = createThrottle(8)
  await collect(throttle.stage(inPieces(noise(100_000)), never))
  await new Promise((resolve) => setTimeout(resolve, 600))
  const seconds = await timed(() => collect(throttle.stage(inPieces(noise(1_000_000)), never)))
  t.ok(within(seconds, 1), `${seconds.toFixed(2)} s where 1 was due`)
})

t.test('an abort ends the wait, a reader that stops closes the source', async (t) => {
  const slow = createThrottle(0.001)
  const controller = new AbortController()
  setTimeout(() => controller.abort(new BackupdError('lease.lost', 'the lease was lost')), 100)
  const waiting = watched([noise(100_000)], 'wait')
  const seconds = await timed(async () => {
    t.equal((await failureOf(() => collect(slow.stage(waiting.source, controller.signal)))).code, 'lease.lost')
  })
  t.ok(seconds < 2)
  t.ok(waiting.closed())

  const left = watched([noise(1000)], 'wait')
  for await (const piece of createThrottle(100).stage(left.source, never)) if (piece.length > 0) break
  t.ok(left.closed())
})

t.test('what is not a rate is refused', async (t) => {
  for (const mbps of [0, -1, Number.NaN, Infinity]) t.equal((await failureOf(async () => createThrottle(mbps))).code, 'throttle.rate')
})
