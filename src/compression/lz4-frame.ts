// The LZ4 frame format: https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md
export const MAGIC = 0x184d2204
/** Blocks of at most 4 MiB, so that each of our frames is one block. */
const LARGEST_BLOCKS = 7
const VERSION_1 = 1 << 6
const INDEPENDENT = 1 << 5
const CONTENT_SIZE = 1 << 3
const CONTENT_CHECKSUM = 1 << 2
const STORED = 0x80000000
const HEADER = 15
/** From this level on the slower, denser compressor is used, as in the `lz4` command. */
const DENSE_FROM = 3
const sizesOfBlocks: Record<number, number> = { 4: 64 * 1024, 5: 256 * 1024, 6: 1024 * 1024, 7: 4 * 1024 * 1024 }

/** What is used of the optional package `lz4`. Sizes are bytes; 0 is a block that did not fit. */
export interface Lz4Native {
  encodeBlock(input: Uint8Array, output: Uint8Array): number
  decodeBlock(input: Uint8Array, output: Uint8Array): number
  utils: { bindings: { compressHCLimited(input: Uint8Array, output: Uint8Array, size: number, level: number): number } }
}

/** Most bytes that a block of `size` plain bytes takes, as in lz4.h. */
const blockBound = (size: number): number => size + Math.floor(size / 255) + 16

/** Most bytes that a frame of `size` plain bytes takes while it is made. */
export const frameBound = (size: number): number => HEADER + 4 + blockBound(size) + 8

/** Writes one complete LZ4 frame, with content size and checksum, of at most 4 MiB of plain bytes; gives its length. `frame` has room for `frameBound`. */
export const encodeFrame = (lz4: Lz4Native, checksum: (bytes: Uint8Array) => number, plain: Uint8Array, frame: Buffer, level: number): number => {
  const room = blockBound(plain.length)
  frame.writeUInt32LE(MAGIC, 0)
  frame[4] = VERSION_1 | INDEPENDENT | CONTENT_SIZE | CONTENT_CHECKSUM
  frame[5] = LARGEST_BLOCKS << 4
  frame.writeUInt32LE(plain.length, 6)
  frame.writeUInt32LE(0, 10)
  frame[14] = (checksum(frame.subarray(4, 14)) >> 8) & 0xff
  let at = HEADER
  if (plain.length > 0) {
    const block = frame.subarray(at + 4, at + 4 + room)
    const packed = level < DENSE_FROM ? lz4.encodeBlock(plain, block) : lz4.utils.bindings.compressHCLimited(plain, block, room, level)
    const stored = packed <= 0 || packed >= plain.length
    if (stored) block.set(plain)
    frame.writeUInt32LE(stored ? (plain.length | STORED) >>> 0 : packed, at)
    at += 4 + (stored ? plain.length : packed)
  }
  frame.writeUInt32LE(0, at)
  frame.writeUInt32LE(checksum(plain), at + 4)
  return at + 8
}

/** What the header of a frame says. */
export interface FrameHeader {
  independent: boolean
  blockChecksums: boolean
  contentChecksum: boolean
  /** Plain bytes of the whole frame, where told. */
  contentSize: bigint | undefined
  /** Largest plain size of a block, bytes. */
  blockSize: number
}

/** Bytes of the header behind the magic number, from its first byte; undefined for a version or feature that is not ours to read. */
export const headerLength = (flags: number): number | undefined =>
  flags >> 6 === 1 && (flags & 0b11) === 0 ? 3 + ((flags & CONTENT_SIZE) === 0 ? 0 : 8) : undefined

/** Reads a header (behind the magic number, `headerLength` bytes); undefined when it is damaged. */
export const parseHeader = (header: Buffer, checksum: (bytes: Uint8Array) => number): FrameHeader | undefined => {
  const flags = header[0] as number
  const blockSize = sizesOfBlocks[(header[1] as number) >> 4]
  const sum = (checksum(header.subarray(0, -1)) >> 8) & 0xff
  if (blockSize === undefined || ((header[1] as number) & 0x0f) !== 0 || sum !== header[header.length - 1]) return undefined
  return {
    independent: (flags & INDEPENDENT) !== 0,
    blockChecksums: (flags & (1 << 4)) !== 0,
    contentChecksum: (flags & CONTENT_CHECKSUM) !== 0,
    contentSize: (flags & CONTENT_SIZE) === 0 ? undefined : header.readBigUInt64LE(2),
    blockSize,
  }
}
