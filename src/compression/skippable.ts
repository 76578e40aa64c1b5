import type { ByteReader } from '../storage/bytes.js'

/** Zstandard and LZ4 share this: magic numbers 0x184D2A50 to 0x184D2A5F begin a frame of user data that decoders skip. Says whether `magic` was one, and skips it. */
export const skippable = async (
  reader: ByteReader,
  magic: number,
  exactly: (reader: ByteReader, length: number) => Promise<Buffer>,
): Promise<boolean> => {
  if ((magic & 0xfffffff0) >>> 0 !== 0x184d2a50) return false
  let left = (await exactly(reader, 4)).readUInt32LE()
  while (left > 0) {
    // One byte at least, so that an end in the middle is noticed.
    const rest = await reader.some(left)
    left -= rest.length > 0 ? rest.length : (await exactly(reader, 1)).length
  }
  return true
}
