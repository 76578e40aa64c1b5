import type { ByteReader } from '../storage/bytes.js'

// The Zstandard frame format: RFC 8878, section 3.1.1. Only lengths are read here; the content is for zstd.
export const MAGIC = 0xfd2fb528
const LARGEST_BLOCK = 128 * 1024
const MAGIC_BYTES = Buffer.from([0x28, 0xb5, 0x2f, 0xfd])
const RLE = 1
const RESERVED = 3

type Exactly = (reader: ByteReader, length: number) => Promise<Buffer>

/** The start of a frame. */
export interface FrameStart {
  /** Magic number and header. */
  bytes: Buffer
  /** Plain bytes of the whole frame, where told. */
  contentSize: bigint | undefined
  checksum: boolean
  /** Bytes that a decoder has to keep. */
  window: number
}

/** Reads the header of a frame behind its magic number; undefined when it is not one. */
export const readStart = async (reader: ByteReader, exactly: Exactly): Promise<FrameStart | undefined> => {
  const descriptor = await exactly(reader, 1)
  const flags = descriptor[0] as number
  if ((flags & 0b1000) !== 0) return undefined
  const single = (flags & 0b10_0000) !== 0
  const sizeCode = flags >> 6
  const sizeLength = sizeCode === 0 ? (single ? 1 : 0) : 1 << sizeCode
  const dictionaryLength = [0, 1, 2, 4][flags & 0b11] as number
  const rest = await exactly(reader, (single ? 0 : 1) + dictionaryLength + sizeLength)
  const size = rest.subarray(rest.length - sizeLength)
  const contentSize =
    sizeLength === 0 ? undefined
    : sizeLength === 8 ? size.readBigUInt64LE()
    : BigInt(size.readUIntLE(0, sizeLength) + (sizeLength === 2 ? 256 : 0))
  const [exponent, eighths] = [(rest[0] as number) >> 3, (rest[0] as number) & 0b111]
  const window = single ? Number(contentSize) : 2 ** (10 + exponent) * (1 + eighths / 8)
  return { bytes: Buffer.concat([MAGIC_BYTES, descriptor, rest]), contentSize, checksum: (flags & 0b100) !== 0, window }
}

/** The bytes of a frame's blocks and of its checksum, one piece per block, each of which decompresses to at most 128 KiB. Throws `damaged` where they are not blocks. */
export async function* readBlocks(
  reader: ByteReader,
  start: FrameStart,
  exactly: Exactly,
  damaged: (why: string) => Error,
): AsyncGenerator<Buffer, void, void> {
  for (let last = false; !last; ) {
    const header = await exactly(reader, 3)
    const word = header.readUIntLE(0, 3)
    last = (word & 1) === 1
    const type = (word >> 1) & 3
    const size = word >> 3
    if (type === RESERVED || size > LARGEST_BLOCK) throw damaged('what should be a block is not one')
    yield header
    const length = type === RLE ? 1 : size
    if (length > 0) yield await exactly(reader, length)
  }
  if (start.checksum) yield await exactly(reader, 4)
}
