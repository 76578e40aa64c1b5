// XXH64, the checksum of Zstandard frames: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
const P1 = 0x9e3779b185ebca87n
const P2 = 0xc2b2ae3d27d4eb4fn
const P3 = 0x165667b19e3779f9n
const P4 = 0x85ebca77c2b2ae63n
const P5 = 0x27d4eb2f165667c5n
const STRIPE = 32
const PAGE = 64 * 1024

const u64 = (value: bigint): bigint => BigInt.asUintN(64, value)
const rotate = (value: bigint, bits: bigint): bigint => u64(value << bits) | (value >> (64n - bits))
const round = (lane: bigint, word: bigint): bigint => u64(rotate(u64(lane + word * P2), 31n) * P1)

// JavaScript has no fast 64 bit multiplication, WebAssembly has. So the loop over stripes, and nothing else, is a function of this module:
//   stripes(from: i32, to: i32): the four lanes lie at address 0 and are updated with the stripes from `from` up to `to`.
const moduleBytes = (): Uint8Array<ArrayBuffer> => {
  const signed = (value: bigint): number[] => {
    const low = Number(value & 0x7fn)
    const rest = BigInt.asIntN(64, value) >> 7n
    const done = (rest === 0n && low < 0x40) || (rest === -1n && low >= 0x40)
    return done ? [low] : [low | 0x80, ...signed(rest)]
  }
  const constant = (value: bigint): number[] => [0x42, ...signed(BigInt.asIntN(64, value))]
  // Lengths here are below 2^14, so two bytes hold them.
  const length = (value: number): number[] => [(value & 0x7f) | 0x80, value >> 7]
  const section = (id: number, content: number[]): number[] => [id, ...length(content.length), ...content]
  const lanes = [0, 1, 2, 3]
  const load = (offset: number): number[] => [0x29, 3, offset]
  const body = [
    1, 4, 0x7e, // four locals of type i64, after the two parameters
    ...lanes.flatMap((lane) => [0x41, 0, ...load(8 * lane), 0x21, 2 + lane]),
    0x03, 0x40, // loop
    ...lanes.flatMap((lane) => [
      0x20, 2 + lane, 0x20, 0, ...load(8 * lane), ...constant(P2), 0x7e, 0x7c, // lane + word * P2
      ...constant(31n), 0x89, ...constant(P1), 0x7e, 0x21, 2 + lane, // rotated by 31, times P1
    ]),
    0x20, 0, 0x41, STRIPE, 0x6a, 0x22, 0, 0x20, 1, 0x49, 0x0d, 0, // from += 32; again while from < to
    0x0b,
    ...lanes.flatMap((lane) => [0x41, 0, 0x20, 2 + lane, 0x37, 3, 8 * lane]),
    0x0b,
  ]
  const name = (text: string): number[] => [text.length, ...Buffer.from(text)]
  return Uint8Array.from([
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, 2, 0x7f, 0x7f, 0]),
    ...section(3, [1, 0]),
    ...section(5, [1, 0, 1]),
    ...section(7, [2, ...name('memory'), 2, 0, ...name('stripes'), 0, 0]),
    ...section(10, [1, ...length(body.length), ...body]),
  ])
}

// Every Node has it; the types of Node leave it to those of browsers.
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object
  Instance: new (module: object) => { exports: unknown }
}

interface Stripes {
  memory: { buffer: ArrayBuffer; grow(pages: number): number }
  stripes(from: number, to: number): void
}

/** Starts a hasher; gives XXH64 with seed 0. For threads: it keeps memory for the largest input it has seen. */
export const createXxh64 = (): ((bytes: Uint8Array) => bigint) => {
  const { memory, stripes } = new WebAssembly.Instance(new WebAssembly.Module(moduleBytes())).exports as Stripes

  const lanesOf = (bytes: Uint8Array): bigint => {
    const missing = STRIPE + bytes.length - memory.buffer.byteLength
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE))
    const lanes = new BigUint64Array(memory.buffer, 0, 4)
    lanes.set([u64(P1 + P2), P2, 0n, u64(-P1)])
    new Uint8Array(memory.buffer, STRIPE).set(bytes)
    stripes(STRIPE, STRIPE + bytes.length)
    const [a, b, c, d] = lanes as unknown as [bigint, bigint, bigint, bigint]
    const merged = u64(rotate(a, 1n) + rotate(b, 7n) + rotate(c, 12n) + rotate(d, 18n))
    return [a, b, c, d].reduce((hash, lane) => u64((hash ^ round(0n, lane)) * P1 + P4), merged)
  }

  return (bytes) => {
    const whole = bytes.length - (bytes.length % STRIPE)
    let hash = u64((whole > 0 ? lanesOf(bytes.subarray(0, whole)) : P5) + BigInt(bytes.length))
    const tail = Buffer.from(bytes.subarray(whole))
    let at = 0
    for (; at + 8 <= tail.length; at += 8) hash = u64(rotate(hash ^ round(0n, tail.readBigUInt64LE(at)), 27n) * P1 + P4)
    for (; at + 4 <= tail.length; at += 4) hash = u64(rotate(hash ^ u64(BigInt(tail.readUInt32LE(at)) * P1), 23n) * P2 + P3)
    for (; at < tail.length; at += 1) hash = u64(rotate(hash ^ u64(BigInt(tail[at] as number) * P5), 11n) * P1)
    hash = u64((hash ^ (hash >> 33n)) * P2)
    hash = u64((hash ^ (hash >> 29n)) * P3)
    return hash ^ (hash >> 32n)
  }
}
