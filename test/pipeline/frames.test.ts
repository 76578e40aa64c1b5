import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import t from 'tap'
import type { FrameCompressor } from '../../src/compression/codec.js'
import { codecs } from '../../src/compression/registry.js'
import { BackupdError } from '../../src/errors.js'
import { compressFrames, FRAME_SIZE, frames } from '../../src/pipeline/frames.js'
import { collect, failureOf, inPieces, never, noise, rows, watched } from '../conformance/streams.js'

const MiB = 1024 * 1024

async function* chunks(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  for (const piece of pieces) yield piece
}

t.test('frames are the stream, cut at exact sizes', async (t) => {
  await t.resolves(fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 30 }), fc.integer({ min: 1, max: 400 }), async (pieces, size) => {
      const cut: Buffer[] = []
      for await (const frame of frames(chunks(pieces), size)) cut.push(Buffer.from(frame))
      const plain = Buffer.concat(pieces)
      return (
        Buffer.concat(cut).equals(plain) &&
        cut.length === Math.ceil(plain.length / size) &&
        cut.slice(0, -1).every(({ length }) => length === size) &&
        cut.every(({ length }) => length > 0)
      )
    }),
    { numRuns: 300 },
  ), 'for every input')
})

t.test('memory that is free is used again', async (t) => {
  const free: Buffer[] = []
  const seen = new Set<ArrayBufferLike>()
  for await (const frame of frames(inPieces(rows(100_000), [777]), 1000, free)) {
    seen.add(frame.buffer)
    free.push(frame)
  }
  t.equal(seen.size, 1)
})

// What a codec does, with times that differ and an account of what is going on.
const slowCompressor = (failAt = Infinity): FrameCompressor & { most: number; started: number } => {
  let running = 0
  const compressor = {
    most: 0,
    started: 0,
    compress: async (frame: Buffer) => {
      const number = (compressor.started += 1)
      running += 1
      compressor.most = Math.max(compressor.most, running)
      await sleep((number * 7) % 20)
      running -= 1
      if (number === failAt) throw new BackupdError('compression.thread', 'it broke')
      return Buffer.from(frame)
    },
    close: () => Promise.resolve(),
  }
  return compressor
}

t.test('frames are compressed side by side, and stay in order', async (t) => {
  const plain = noise(7 * FRAME_SIZE + 123)
  for (const window of [1, 2, 4]) {
    const compressor = slowCompressor()
    const told: number[] = []
    const out = await collect(compressFrames(inPieces(plain, [MiB, 65_537]), compressor, { window, signal: never, onFrame: ({ plain, stored }) => told.push(plain, stored) }))
    t.ok(out.equals(plain), `window ${window}`)
    t.equal(compressor.most, window, 'as many at once as the window')
    t.equal(told.length, 16)
    t.equal(told.reduce((sum, bytes) => sum + bytes, 0), 2 * plain.length)
  }
})

t.test('an empty stream is one empty frame', async (t) => {
  for (const codec of [codecs.gzip, codecs.zstd]) {
    const compressor = await codec.compressor({ concurrency: 1 })
    let count = 0
    const packed = await collect(compressFrames(inPieces(Buffer.alloc(0)), compressor, { signal: never, onFrame: () => (count += 1) }))
    t.ok(packed.length > 0)
    t.equal(count, 1)
    t.equal((await collect(codec.decompress(inPieces(packed), { signal: never }))).length, 0)
    await compressor.close()
  }
})

t.test('a failure of the compressor ends the stream and closes the source', async (t) => {
  const { source, closed } = watched(Array.from({ length: 40 }, () => noise(MiB)))
  const compressor = slowCompressor(3)
  t.equal((await failureOf(() => collect(compressFrames(source, compressor, { window: 2, signal: never })))).code, 'compression.thread')
  t.ok(closed())
  t.ok(compressor.started <= 5, `${compressor.started} frames were started`)
})

t.test('a failure of the source arrives as it is, a reader that stops closes it, an abort ends it', async (t) => {
  const failure = new BackupdError('postgres.dump', 'pg_dump was killed')
  const pieces = (): Buffer[] => Array.from({ length: 9 }, () => noise(MiB))
  t.equal(await failureOf(() => collect(compressFrames(watched(pieces(), failure).source, slowCompressor(), { signal: never }))), failure)

  const left = watched(pieces(), 'wait')
  for await (const frame of compressFrames(left.source, slowCompressor(), { window: 2, signal: never })) {
    t.ok(frame.length > 0)
    break
  }
  t.ok(left.closed())

  const waiting = watched(pieces(), 'wait')
  const controller = new AbortController()
  setTimeout(() => controller.abort(), 100)
  t.equal((await failureOf(() => collect(compressFrames(waiting.source, slowCompressor(), { signal: controller.signal })))).code, 'cancelled')
  t.ok(waiting.closed())
})
