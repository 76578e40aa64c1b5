import { endianness } from 'node:os'

// CRC-32C (Castagnoli, RFC 3720 B.4), sixteen tables, sixteen bytes at a time: Node has only the other CRC-32 natively.

const polynomial = 0x82f63b78

// Table 0 says what one byte does, table n what it does n bytes later. In one array, because that is faster than sixteen.
const tables = new Int32Array(16 * 256)
for (let byte = 0; byte < 256; byte += 1) {
  let crc = byte
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1
  tables[byte] = crc
}
const of = (index: number): number => tables[index] as number
for (let index = 256; index < tables.length; index += 1) tables[index] = (of(index - 256) >>> 8) ^ of(of(index - 256) & 255)

const littleEndian = endianness() === 'LE'

const byByte = (data: Buffer, from: number, to: number, start: number): number => {
  let crc = start
  for (let at = from; at < to; at += 1) crc = (crc >>> 8) ^ of((crc ^ (data[at] as number)) & 255)
  return crc
}

/** CRC-32C of `data`, going on from `start` (the CRC of what came before), as an unsigned number. */
export const crc32c = (data: Buffer, start = 0): number => {
  // Numbers of four bytes are read where they are aligned, and must have their least significant byte first, as on all machines but mainframes.
  const head = -data.byteOffset & 3
  if (!littleEndian || head > data.length) return ~byByte(data, 0, data.length, ~start) >>> 0
  let crc = byByte(data, 0, head, ~start)
  const words = new Int32Array(data.buffer, data.byteOffset + head, Math.floor((data.length - head) / 16) * 4)
  for (let at = 0; at < words.length; at += 4) {
    const a = crc ^ (words[at] as number)
    const b = words[at + 1] as number
    const c = words[at + 2] as number
    const d = words[at + 3] as number
    crc = of(3840 + (a & 255)) ^ of(3584 + ((a >>> 8) & 255)) ^ of(3328 + ((a >>> 16) & 255)) ^ of(3072 + (a >>> 24)) ^
      of(2816 + (b & 255)) ^ of(2560 + ((b >>> 8) & 255)) ^ of(2304 + ((b >>> 16) & 255)) ^ of(2048 + (b >>> 24)) ^
      of(1792 + (c & 255)) ^ of(1536 + ((c >>> 8) & 255)) ^ of(1280 + ((c >>> 16) & 255)) ^ of(1024 + (c >>> 24)) ^
      of(768 + (d & 255)) ^ of(512 + ((d >>> 8) & 255)) ^ of(256 + ((d >>> 16) & 255)) ^ of(d >>> 24)
  }
  crc = byByte(data, head + words.byteLength, data.length, crc)
  return ~crc >>> 0
}

type Matrix = number[]

const times = (matrix: Matrix, vector: number): number => {
  let sum = 0
  for (let bit = 0; bit < 32 && vector >>> bit !== 0; bit += 1) if ((vector >>> bit) & 1) sum ^= matrix[bit] as number
  return sum
}

const square = (matrix: Matrix): Matrix => matrix.map((column) => times(matrix, column))

/** CRC-32C of two pieces one after the other, from the CRC of each and the length of the second (the method of zlib's crc32_combine). */
export const combineCrc32c = (first: number, second: number, secondLength: number): number => {
  // The operator that appends one zero bit; squared three times it appends a byte.
  let operator: Matrix = [polynomial, ...Array.from({ length: 31 }, (_, bit) => (1 << bit) >>> 0)]
  for (let step = 0; step < 3; step += 1) operator = square(operator)
  let crc = first
  for (let left = secondLength; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) crc = times(operator, crc)
    operator = square(operator)
  }
  return (crc ^ second) >>> 0
}

/** As services write it: four bytes, most significant first, in base64. */
export const crcText = (crc: number): string => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(crc)
  return bytes.toString('base64')
}
