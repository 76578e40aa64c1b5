import fc from 'fast-check'
import type { Test } from 'tap'
import type { Codec, CompressionType } from '../../src/compression/codec.js'
import { BackupdError } from '../../src/errors.js'
import { compressFrames, FRAME_SIZE } from '../../src/pipeline/frames.js'
import { chunkings, collect, failureOf, inPieces, measure, never, noise, rows, shell, threads, tool, watched } from './streams.js'

/** The commands of Debian that read and write a format. */
interface StockTool {
  read: readonly string[]
  /** Each writes, from stdin to stdout, a stream that has to be readable. */
  write: readonly (readonly string[])[]
  /** Reads what the codec writes of more than 100 MB as one frame or member, the way the command makes it. */
  large: readonly string[]
}

const stockTools: Record<CompressionType, StockTool> = {
  none: { read: ['cat'], write: [['cat']], large: ['cat'] },
  gzip: { read: ['gzip', '-dc'], write: [['gzip', '-c'], ['gzip', '-1', '-c']], large: ['gzip -1'] },
  lz4: {
    read: ['lz4', '-dc'],
    write: [['lz4', '-c'], ['lz4', '-9', '-c'], ['lz4', '-c', '-B4', '-BD'], ['lz4', '-c', '-B5', '-BX'], ['lz4', '-c', '--no-frame-crc']],
    large: ['lz4 -1', 'lz4 -1 -BD -B4'],
  },
  zstd: {
    read: ['zstd', '-dc', '-q'],
    write: [['zstd', '-c', '-q'], ['zstd', '-19', '-c', '-q'], ['zstd', '-c', '-q', '--no-check'], ['zstd', '-c', '-q', '--long=24']],
    large: ['zstd -1 -q'],
  },
}

const KiB = 1024
const MiB = 1024 * KiB

/** Compresses as the program does: in frames. */
const pack = async (codec: Codec, plain: Buffer, options: { level?: number } = {}): Promise<Buffer> => {
  const compressor = await codec.compressor({ concurrency: 3, ...(options.level === undefined ? {} : { level: options.level }) })
  try {
    return await collect(compressFrames(inPieces(plain), compressor, { signal: never }))
  } finally {
    await compressor.close()
  }
}

/** Small frames one behind the other, and where each ends. */
const packSmall = async (codec: Codec, plains: readonly Buffer[]): Promise<{ packed: Buffer; ends: number[] }> => {
  const compressor = await codec.compressor({ concurrency: 2 })
  const frames: Buffer[] = []
  for (const plain of plains) frames.push(Buffer.from(await compressor.compress(Buffer.from(plain))))
  await compressor.close()
  let end = 0
  return { packed: Buffer.concat(frames), ends: frames.map(({ length }) => (end += length)) }
}

const unpack = (codec: Codec, packed: Buffer, sizes?: readonly number[]): Promise<Buffer> =>
  collect(codec.decompress(inPieces(packed, sizes), { signal: never }))

const roundTrips = (t: Test, codec: Codec): void => {
  t.test('what was compressed comes back, and stock tools read it', async (t) => {
    const inputs: [string, Buffer][] = [
      ['nothing', Buffer.alloc(0)],
      ['one byte', Buffer.from('x')],
      ['one byte less than a frame', rows(FRAME_SIZE - 1)],
      ['one frame', rows(FRAME_SIZE)],
      ['one byte more than a frame', rows(FRAME_SIZE + 1)],
      ['several frames', rows(3 * FRAME_SIZE + 12_345)],
      ['what cannot be compressed', noise(FRAME_SIZE + 54_321)],
      ['zeros', Buffer.alloc(2 * FRAME_SIZE)],
    ]
    const compressor = await codec.compressor({ concurrency: 3 })
    t.teardown(() => compressor.close())
    for (const [name, plain] of inputs) {
      const packed = await collect(compressFrames(inPieces(plain), compressor, { signal: never }))
      t.ok((await unpack(codec, packed)).equals(plain), name)
      t.ok((await tool(stockTools[codec.type].read, inPieces(packed))).equals(plain), `${name}, by ${stockTools[codec.type].read[0]}`)
      t.ok(packed.length < plain.length * 1.01 + 100, `${name}: ${plain.length} bytes became ${packed.length}`)
    }
  })

  t.test('however the streams are cut', async (t) => {
    const plain = Buffer.concat([rows(50_000), noise(9_000), Buffer.alloc(30_000), rows(10_000, 5)])
    const compressor = await codec.compressor({ concurrency: 3 })
    const packed = (sizes: readonly number[]): Promise<Buffer> => collect(compressFrames(inPieces(plain, sizes), compressor, { signal: never }))
    const whole = await packed([plain.length])
    await fc.assert(
      fc.asyncProperty(chunkings, chunkings, async (before, after) =>
        (await packed(before)).equals(whole) && (await unpack(codec, whole, after)).equals(plain)),
      { numRuns: 15 },
    )
    await compressor.close()
    t.ok((await unpack(codec, whole)).equals(plain))
    const small = rows(3000)
    t.ok((await unpack(codec, await pack(codec, small), [1])).equals(small), 'byte by byte')
  })

  t.test('at every level', async (t) => {
    const plain = rows(50_000)
    for (let level = codec.levels.min; level <= codec.levels.max; level += 1) {
      t.ok((await unpack(codec, await pack(codec, plain, { level }))).equals(plain), `level ${level}`)
    }
    for (const level of [codec.levels.min - 1, codec.levels.max + 1, 1.5, Number.NaN]) {
      t.match(await failureOf(() => codec.compressor({ level, concurrency: 1 })), { code: 'compression.level', kind: 'usage', hint: /\w/ })
    }
  })
}

const foreign = (t: Test, codec: Codec): void => {
  t.test('what stock tools write is read, also several of it', async (t) => {
    const plain = Buffer.concat([rows(2 * MiB), noise(100 * KiB), Buffer.alloc(MiB)])
    for (const command of stockTools[codec.type].write) {
      const packed = await tool(command, inPieces(plain))
      t.ok((await unpack(codec, packed)).equals(plain), command.join(' '))
      const twice = Buffer.concat([packed, await tool(command), packed])
      t.ok((await unpack(codec, twice, [100_000, 7])).equals(Buffer.concat([plain, plain])), `${command.join(' ')}, with an empty one between two`)
    }
  })

  t.test('more than 100 MB in one frame, in bounded memory', async (t) => {
    const command = 'seq 1 16000000'
    const expected = await measure(shell(command))
    t.ok(expected.bytes > 100 * MiB)
    for (const writer of stockTools[codec.type].large) {
      const read = await measure(codec.decompress(shell(`${command} | ${writer}`), { signal: never }))
      t.equal(read.sha256, expected.sha256, writer)
      t.ok(read.largest <= 16 * MiB, `${writer}: chunks of at most ${read.largest} bytes`)
      t.ok(read.grown < 110 * MiB, `${writer}: memory grew by ${Math.round(read.grown / MiB)} MiB`)
    }
  })
}

const damage = (t: Test, codec: Codec): void => {
  const plains = [rows(700), noise(300), rows(900, 3)]
  const plain = Buffer.concat(plains)

  t.test('a stream that ends early is damaged, wherever it ends within a frame', async (t) => {
    const { packed, ends } = await packSmall(codec, plains)
    for (let length = 0; length < packed.length; length += 1) {
      if (ends.includes(length)) continue
      const error = await failureOf(() => unpack(codec, packed.subarray(0, length), [500]))
      if (error.code !== 'compression.corrupt' || error.kind !== 'integrity') t.fail(`${length} bytes: ${error.code}`)
    }
    t.ok((await unpack(codec, packed)).equals(plain), 'the whole is not')
  })

  t.test('a stream of large frames that ends early is damaged', async (t) => {
    const packed = await pack(codec, rows(2 * FRAME_SIZE + 1000))
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: packed.length - 1 }), async (length) => {
        try {
          return (await unpack(codec, packed.subarray(0, length))).length % FRAME_SIZE === 0
        } catch (error) {
          return error instanceof BackupdError && error.code === 'compression.corrupt'
        }
      }),
      { numRuns: 6 },
    )
    t.equal((await unpack(codec, packed)).length, 2 * FRAME_SIZE + 1000, 'the whole is not')
  })

  t.test('a flipped bit is never taken for data', async (t) => {
    const { packed } = await packSmall(codec, plains)
    let noticed = 0
    for (let at = 0; at < packed.length; at += 1) {
      const changed = Buffer.from(packed)
      changed[at] = (changed[at] as number) ^ (1 << at % 8)
      try {
        // What no checksum covers, such as the time in the header of gzip, makes no difference to the content.
        if (!(await unpack(codec, changed)).equals(plain)) t.fail(`a flip in byte ${at} changed the content unseen`)
      } catch (error) {
        if (!(error instanceof BackupdError) || error.code !== 'compression.corrupt') throw error
        noticed += 1
      }
    }
    t.ok(noticed > packed.length * 0.9, `${noticed} of ${packed.length} flips were noticed`)
  })

  t.test('what follows the end is damage', async (t) => {
    const { packed } = await packSmall(codec, plains)
    for (const garbage of [Buffer.from([0]), Buffer.alloc(1000), Buffer.from('x'), Buffer.from('some text behind it'), noise(5000)]) {
      for (const sizes of [[100_000], [packed.length, 100_000], [1]]) {
        t.match(await failureOf(() => unpack(codec, Buffer.concat([packed, garbage]), sizes)), { code: 'compression.corrupt' }, `${garbage.length} bytes`)
      }
    }
  })

  t.test('what never was compressed is damage', async (t) => {
    for (const bytes of [Buffer.alloc(0), Buffer.alloc(100), Buffer.from('PGDMP'), rows(100_000), noise(100_000)]) {
      const error = await failureOf(() => unpack(codec, bytes))
      t.match(error, { code: 'compression.corrupt', kind: 'integrity', retryable: false, hint: /\w/ }, `${bytes.length} bytes`)
    }
  })
}

const endings = (t: Test, codec: Codec): void => {
  t.test('a reader that stops early closes the source, and leaves no thread', async (t) => {
    const packed = await pack(codec, rows(6 * FRAME_SIZE))
    const before = threads()
    for (let run = 0; run < 3; run += 1) {
      const { source, closed } = watched(inPiecesSync(packed), 'wait')
      for await (const piece of codec.decompress(source, { signal: never })) {
        t.ok(piece.length > 0)
        break
      }
      t.ok(closed(), 'the source is closed')
    }
    t.ok(threads() <= before + 4, `${threads()} threads, ${before} before; zlib has four`)
  })

  t.test('an abort ends reading at once, also while the source gives nothing', async (t) => {
    const packed = await pack(codec, rows(FRAME_SIZE))
    const { source, closed } = watched(inPiecesSync(packed.subarray(0, -10)), 'wait')
    const controller = new AbortController()
    setTimeout(() => controller.abort(), 100)
    const started = performance.now()
    t.match(await failureOf(() => collect(codec.decompress(source, { signal: controller.signal }))), { code: 'cancelled' })
    t.ok(performance.now() - started < 2000)
    t.ok(closed())
    t.match(await failureOf(() => collect(codec.decompress(inPieces(packed), { signal: AbortSignal.abort() }))), { code: 'cancelled' })
  })

  t.test('an error of the source arrives as it is', async (t) => {
    const packed = await pack(codec, rows(FRAME_SIZE))
    const failure = new BackupdError('storage.reset', 'the connection was reset')
    const { source } = watched(inPiecesSync(packed.subarray(0, 1000)), failure)
    t.equal(await failureOf(() => collect(codec.decompress(source, { signal: never }))), failure)
  })

  t.test('closing a compressor leaves no thread', async (t) => {
    const before = threads()
    for (let run = 0; run < 2; run += 1) {
      const compressor = await codec.compressor({ concurrency: 2 })
      const frames = [rows(MiB), rows(MiB, 2), rows(MiB, 3)]
      const results = await Promise.all(frames.map((frame) => compressor.compress(frame)))
      t.ok((await unpack(codec, Buffer.concat(results))).equals(Buffer.concat([rows(MiB), rows(MiB, 2), rows(MiB, 3)])), 'in the order of the calls')
      await compressor.close()
    }
    t.ok(threads() <= before + 4, `${threads()} threads, ${before} before; zlib has four`)
  })
}

function* inPiecesSync(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += 64 * KiB) yield bytes.subarray(at, at + 64 * KiB)
}

/** The suite that every codec has to pass. */
export const codecSuite = (t: Test, codec: Codec): void => {
  t.test(codec.type, async (t) => {
    t.match(codec.suffix, codec.type === 'none' ? /^$/ : /^\.[a-z0-9]+$/)
    t.ok(codec.levels.min <= codec.levels.default && codec.levels.default <= codec.levels.max)
    const missing = await codec.unavailable()
    if (missing === undefined) roundTrips(t, codec)
    else {
      t.match(missing, /install|rebuild/, 'what is missing says how to get it')
      t.match(await failureOf(() => codec.compressor({ concurrency: 1 })), { code: 'compression.unavailable', kind: 'configuration' })
    }
    foreign(t, codec)
    if (missing === undefined && codec.type !== 'none') damage(t, codec)
    if (missing === undefined) endings(t, codec)
  })
}

