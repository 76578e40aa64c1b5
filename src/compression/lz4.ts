import { abortable, createReader, type ByteReader } from '../storage/bytes.js'
import type { ByteSource } from '../storage/storage.js'
import type { Codec } from './codec.js'
import { corrupt, unavailable } from './errors.js'
import { checkedLevel } from './levels.js'
import { decodeBlock } from './lz4-block.js'
import { frameBound, headerLength, MAGIC, parseHeader, type FrameHeader } from './lz4-frame.js'
import { compressWithLz4, findLz4 } from './lz4-native.js'
import { createPool } from './pool.js'
import { skippable } from './skippable.js'
import { createXxh32, xxh32 } from './xxhash32.js'

/** How far a block may look back into the blocks before it. */
const HISTORY = 64 * 1024
const STORED = 0x80000000
type Decode = (input: Buffer, size: number) => Buffer

const damaged = (why: string): Error => corrupt('lz4', why)

const exactly = async (reader: ByteReader, length: number): Promise<Buffer> => {
  const bytes = await reader.read(length)
  if (bytes.length < length) throw damaged('it ends in the middle of a frame')
  return bytes
}

const readHeader = async (reader: ByteReader): Promise<FrameHeader> => {
  const flags = await exactly(reader, 1)
  const length = headerLength(flags[0] as number)
  if (length === undefined) throw damaged('a frame asks for a format version or dictionary that is not known')
  const header = parseHeader(Buffer.concat([flags, await exactly(reader, length - 1)]), xxh32)
  if (header === undefined) throw damaged('the header of a frame is wrong')
  return header
}

// The package decodes ten times as fast as our own code, which is there so that reading back never depends on a compiler.
const independentDecoder = async (): Promise<Decode> => {
  const found = await findLz4()
  return (input, size) => {
    const output = Buffer.allocUnsafe(size)
    const length = 'lz4' in found ? found.lz4.decodeBlock(input, output) : decodeBlock(input, output, 0, 0)
    if (length < 0) throw damaged('a block cannot be decompressed')
    return output.subarray(0, length)
  }
}

// Blocks of the frame may refer to the 64 KiB before them, so those are kept in front of the room for the next block.
const linkedDecoder = (): { decode: Decode; stored(block: Buffer): void } => {
  let history: Buffer = Buffer.alloc(0)
  const remember = (bytes: Buffer): void => {
    history = bytes.length >= HISTORY ? Buffer.from(bytes.subarray(-HISTORY)) : Buffer.from(Buffer.concat([history, bytes]).subarray(-HISTORY))
  }
  return {
    decode: (input, size) => {
      const output = Buffer.allocUnsafe(history.length + size)
      history.copy(output)
      const end = decodeBlock(input, output, history.length, 0)
      if (end < 0) throw damaged('a block cannot be decompressed')
      const plain = output.subarray(history.length, end)
      remember(plain)
      return plain
    },
    stored: remember,
  }
}

async function* frame(reader: ByteReader, independent: Decode): AsyncGenerator<Buffer, void, void> {
  const header = await readHeader(reader)
  const linked = header.independent ? undefined : linkedDecoder()
  const sum = header.contentChecksum ? createXxh32() : undefined
  let total = 0
  for (;;) {
    const word = (await exactly(reader, 4)).readUInt32LE()
    if (word === 0) break
    const length = (word & ~STORED) >>> 0
    if (length > header.blockSize) throw damaged('a block is larger than its frame allows')
    const block = await exactly(reader, length)
    if (header.blockChecksums && (await exactly(reader, 4)).readUInt32LE() !== xxh32(block)) throw damaged('the checksum of a block is wrong')
    let plain = block
    if (word >= STORED) linked?.stored(block)
    else plain = (linked?.decode ?? independent)(block, header.blockSize)
    sum?.update(plain)
    total += plain.length
    if (plain.length > 0) yield plain
  }
  if (sum !== undefined && (await exactly(reader, 4)).readUInt32LE() !== sum.digest()) throw damaged('the checksum of the content is wrong')
  if (header.contentSize !== undefined && header.contentSize !== BigInt(total)) throw damaged('the content has another size than its frame says')
}

async function* decompress(source: ByteSource, signal: AbortSignal): AsyncGenerator<Buffer, void, void> {
  const reader = createReader(abortable(source, signal))
  try {
    const independent = await independentDecoder()
    if (await reader.atEnd()) throw damaged('it is empty')
    while (!(await reader.atEnd())) {
      const magic = (await exactly(reader, 4)).readUInt32LE()
      if (magic === MAGIC) yield* frame(reader, independent)
      else if (!(await skippable(reader, magic, exactly))) throw damaged('what should be a frame is not one')
    }
  } finally {
    await reader.close()
  }
}

/** LZ4 frames: compressed by the optional package `lz4` in threads, decompressed by it or by our own code. */
export const lz4: Codec = {
  type: 'lz4',
  suffix: '.lz4',
  levels: { min: 1, max: 12, default: 1 },
  unavailable: async () => {
    const found = await findLz4()
    return 'missing' in found ? found.missing : undefined
  },
  compressor: async ({ level: wanted, concurrency }) => {
    const level = checkedLevel(lz4, wanted)
    const found = await findLz4()
    if ('missing' in found) throw unavailable('lz4', found.missing)
    const pool = createPool(concurrency, new URL('./lz4-thread.js', import.meta.url), compressWithLz4)
    return { compress: (bytes) => pool.run({ work: level, input: bytes, room: frameBound(bytes.length) }), close: () => pool.close() }
  },
  decompress: (source, { signal }) => decompress(source, signal),
}
