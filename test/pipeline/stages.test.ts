import { createHash } from 'node:crypto'
import t from 'tap'
import { BackupdError } from '../../src/errors.js'
import { createCounter } from '../../src/pipeline/count.js'
import { createDigest } from '../../src/pipeline/digest.js'
import { collect, failureOf, inPieces, noise, watched } from '../conformance/streams.js'

t.test('a digest is that of the bytes that passed', async (t) => {
  for (const length of [0, 1, 100_000]) {
    const bytes = noise(length)
    const told: number[] = []
    const digest = createDigest((size) => told.push(size))
    t.ok((await collect(digest.stage(inPieces(bytes, [1000, 1])))).equals(bytes))
    t.equal(digest.sha256(), createHash('sha256').update(bytes).digest('hex'))
    t.equal(digest.sha256(), digest.sha256(), 'asked twice')
    t.equal(digest.bytes, length)
    t.equal(told.reduce((sum, size) => sum + size, 0), length)
  }
})

t.test('a counter counts', async (t) => {
  const counter = createCounter()
  t.equal((await collect(counter.stage(inPieces(noise(12_345), [99])))).length, 12_345)
  t.equal(counter.bytes, 12_345)
})

t.test('both close the source when the reader stops, and hand on its failure', async (t) => {
  for (const create of [createDigest, createCounter]) {
    const left = watched([noise(10), noise(10)], 'wait')
    for await (const piece of create().stage(left.source)) if (piece.length > 0) break
    t.ok(left.closed())
    const failure = new BackupdError('postgres.dump', 'pg_dump was killed')
    t.equal(await failureOf(() => collect(create().stage(watched([noise(10)], failure).source))), failure)
  }
})
