import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { decodeBlock } from '../../src/compression/lz4-block.js'
import { codecs } from '../../src/compression/registry.js'
import { createXxh32, xxh32 } from '../../src/compression/xxhash32.js'
import { createXxh64 } from '../../src/compression/xxhash64.js'
import { compressBound, loadZstdWasm, workInWasm } from '../../src/compression/zstd-wasm.js'
import { zstdNative } from '../../src/compression/zstd-native.js'
import { collect, inPieces, noise, rows, shell, tool } from '../conformance/streams.js'

// The suite of codecs uses what this Node has; here WebAssembly is used whatever Node has.
const pack = async (plain: Buffer, level: number): Promise<Buffer> => {
  const output = Buffer.alloc(compressBound(plain.length))
  return output.subarray(0, await workInWasm({ level }, plain, output))
}

const unpack = async (frame: Buffer, size: number): Promise<Buffer> => {
  const output = Buffer.alloc(size)
  return output.subarray(0, await workInWasm({ size }, frame, output))
}

t.test('what WebAssembly compresses, zstd reads and checks', async (t) => {
  const dir = t.testdir({})
  for (const [level, plain] of [[1, rows(4_194_304)], [3, rows(4_194_304)], [6, rows(4_194_304)], [12, rows(2_000_000)], [22, rows(300_000)], [3, noise(4_194_304)], [3, Buffer.alloc(0)], [3, noise(1)], [3, Buffer.alloc(100_000)]] as const) {
    const packed = Buffer.from(await pack(plain, level))
    const name = `${plain.length} bytes at level ${level}`
    t.ok((await tool(['zstd', '-dc', '-q'], inPieces(packed))).equals(plain), name)
    t.match((await tool(['bash', '-c', 'cat > "$0" && zstd -lv "$0"', join(dir, 'frame.zst')], inPieces(packed))).toString(), /Check: XXH64/, name)
    t.ok((await unpack(packed, plain.length)).equals(plain), name)
    if (zstdNative !== undefined) t.ok((await zstdNative.decompress(packed, plain.length)).equals(plain), `${name}, by zlib`)
  }
})

// A frame that does not tell its size cannot be decompressed whole, beside others: half the speed of a restore.
t.test('frames tell their size and carry a checksum, whatever Node has', async (t) => {
  const file = join(t.testdir({}), 'frames.zst')
  const compressor = await codecs.zstd.compressor({ concurrency: 1 })
  for (const size of [10, 1000, 1_000_000]) {
    writeFileSync(file, await compressor.compress(rows(size)))
    t.match((await tool(['zstd', '-lv', file])).toString(), new RegExp(`Decompressed Size:.*\\b${size} B[^]*Check: XXH64`), `${size} bytes`)
  }
  await compressor.close()
})

t.test('what zstd compresses, WebAssembly reads, also with a window of 128 MiB', async (t) => {
  for (const options of ['-3', '-19 --long=24', '-1 --long=27']) {
    const expected = await collect(shell('seq 1 300000'))
    const stream = (await loadZstdWasm()).stream()
    const plain: Buffer[] = []
    for await (const piece of shell(`seq 1 300000 | zstd -q ${options}`)) plain.push(stream.push(piece))
    stream.close()
    t.ok(Buffer.concat(plain).equals(expected), options)
  }
})

t.test('what is damaged is refused, and the next is not affected', async (t) => {
  const plain = rows(100_000)
  const packed = Buffer.from(await pack(plain, 3))
  for (const at of [10, 1000, packed.length - 1]) {
    const changed = Buffer.from(packed)
    changed[at] = (changed[at] as number) ^ 0x10
    await t.rejects(unpack(changed, plain.length), `byte ${at}`)
    t.ok((await unpack(packed, plain.length)).equals(plain))
  }
  await t.rejects(unpack(packed, plain.length - 1), 'another size than expected')
})

t.test('the checksums are those of the specification', async (t) => {
  const xxh64 = createXxh64()
  for (const [text, short, long] of [['', 0x02cc5d05, 'ef46db3751d8e999'], ['a', 0x550d7456, 'd24ec4f1a98c6e5b'], ['abc', 0x32d153ff, '44bc2cf5ad770999']] as const) {
    t.equal(xxh32(Buffer.from(text)), short)
    t.equal(xxh64(Buffer.from(text)).toString(16), long)
  }
  await t.resolves(
    fc.assert(
      fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 70 }), { maxLength: 8 }), async (pieces) => {
        const hash = createXxh32()
        for (const piece of pieces) hash.update(piece)
        return hash.digest() === xxh32(Buffer.concat(pieces))
      }),
    ),
    'piece by piece or at once',
  )
})

t.test('no bytes make the LZ4 decoder leave its bounds', async (t) => {
  await t.resolves(
    fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 80 }), fc.integer({ min: 0, max: 100 }), async (input, room) => {
        const memory = Buffer.alloc(room + 20, 7)
        const end = decodeBlock(input, memory.subarray(5, 5 + room), 0, 0)
        return end >= -1 && end <= room && memory.subarray(0, 5).every((byte) => byte === 7) && memory.subarray(5 + room).every((byte) => byte === 7)
      }),
      { numRuns: 3000 },
    ),
    'for every input',
  )
})
