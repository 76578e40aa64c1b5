// CRC-32C (Castagnoli, RFC 3720 B.4), eight tables, eight bytes at a time: Node has only the other CRC-32 natively.

const polynomial = 0x82f63b78

const tables = Array.from({ length: 8 }, () => new Int32Array(256))
const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array]
for (let byte = 0; byte < 256; byte += 1) {
  let crc = byte
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1
  t0[byte] = crc
}
for (let byte = 0; byte < 256; byte += 1) {
  for (let table = 1; table < 8; table += 1) {
    const before = (tables[table - 1] as Int32Array)[byte] as number
    ;(tables[table] as Int32Array)[byte] = (before >>> 8) ^ (t0[before & 255] as number)
  }
}

/** CRC-32C of `data`, going on from `start` (the CRC of what came before), as an unsigned number. */
export const crc32c = (data: Buffer, start = 0): number => {
  let crc = ~start
  let at = 0
  const end = data.length - 7
  for (; at < end; at += 8) {
    crc ^= (data[at] as number) | ((data[at + 1] as number) << 8) | ((data[at + 2] as number) << 16) | ((data[at + 3] as number) << 24)
    crc = (t7[crc & 255] as number) ^ (t6[(crc >>> 8) & 255] as number) ^ (t5[(crc >>> 16) & 255] as number) ^ (t4[crc >>> 24] as number) ^
      (t3[data[at + 4] as number] as number) ^ (t2[data[at + 5] as number] as number) ^ (t1[data[at + 6] as number] as number) ^ (t0[data[at + 7] as number] as number)
  }
  for (; at < data.length; at += 1) crc = (crc >>> 8) ^ (t0[(crc ^ (data[at] as number)) & 255] as number)
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
