import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { BackupdError } from '../../src/errors.js'
import { withWatchdog } from '../../src/pipeline/watchdog.js'
import { collect, failureOf, inPieces, never, noise, watched } from '../conformance/streams.js'

async function* every(milliseconds: number, count: number, size = 10): AsyncGenerator<Buffer> {
  for (let index = 0; index < count; index += 1) {
    await sleep(milliseconds)
    yield Buffer.alloc(size, 'x')
  }
}

t.test('a source that gives nothing more is ended, and closed', async (t) => {
  const { source, closed } = watched([noise(10)], 'wait')
  const told: BackupdError[] = []
  const started = performance.now()
  const error = await failureOf(() => collect(withWatchdog(source, { timeout: 300, onStall: (error) => told.push(error), signal: never })))
  t.match(error, { code: 'pipeline.stalled', retryable: true, message: /0\.3 seconds/, hint: /BACKUPD_STALL_TIMEOUT/ })
  t.equal(told[0], error)
  t.ok(performance.now() - started >= 290)
  t.ok(closed())
})

t.test('a slow source is not a stalled one', async (t) => {
  t.equal((await collect(withWatchdog(every(100, 12), { timeout: 700, signal: never }))).length, 120)
})

t.test('empty chunks are no progress', async (t) => {
  t.equal((await failureOf(() => collect(withWatchdog(every(50, 1000, 0), { timeout: 300, signal: never })))).code, 'pipeline.stalled')
})

t.test('a reader that is stuck is told of, and finds the stream ended', async (t) => {
  const told: BackupdError[] = []
  const error = await failureOf(async () => {
    for await (const piece of withWatchdog(inPieces(noise(1000), [10]), { timeout: 200, onStall: (error) => told.push(error), signal: never })) {
      t.equal(piece.length, 10)
      while (told.length === 0) await sleep(20)
    }
  })
  t.equal(error.code, 'pipeline.stalled')
  t.equal(told[0], error)
})

t.test('bytes that move elsewhere on the line keep it alive', async (t) => {
  let stored = 0
  const moving = setInterval(() => (stored += 1), 50)
  const { source } = watched([noise(10)], 'wait')
  const started = performance.now()
  setTimeout(() => clearInterval(moving), 900)
  const error = await failureOf(() => collect(withWatchdog(source, { timeout: 300, elsewhere: () => stored, signal: never })))
  t.equal(error.code, 'pipeline.stalled')
  t.ok(performance.now() - started >= 1000, 'not before they stopped')
})

t.test('nothing rings once the stream has ended, was left or aborted', async (t) => {
  let rings = 0
  const options = { timeout: 150, onStall: () => void (rings += 1), signal: never }
  t.equal((await collect(withWatchdog(inPieces(noise(100)), options))).length, 100)
  const left = watched([noise(10)], 'wait')
  for await (const piece of withWatchdog(left.source, options)) if (piece.length > 0) break
  t.ok(left.closed())
  const controller = new AbortController()
  setTimeout(() => controller.abort(), 20)
  t.equal((await failureOf(() => collect(withWatchdog(watched([], 'wait').source, { ...options, signal: controller.signal })))).code, 'cancelled')
  await sleep(400)
  t.equal(rings, 0)
})
