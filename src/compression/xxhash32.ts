// XXH32, the checksum of LZ4 frames: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
const P1 = 0x9e3779b1 | 0
const P2 = 0x85ebca77 | 0
const P3 = 0xc2b2ae3d | 0
const P4 = 0x27d4eb2f
const P5 = 0x165667b1

const rotate = (value: number, bits: number): number => (value << bits) | (value >>> (32 - bits))
const round = (lane: number, word: number): number => Math.imul(rotate((lane + Math.imul(word, P2)) | 0, 13), P1)

/** A running XXH32 with seed 0. */
export interface Xxh32 {
  update(bytes: Uint8Array): void
  /** The checksum of everything so far, unsigned. */
  digest(): number
}

/** Starts an XXH32 with seed 0. */
export const createXxh32 = (): Xxh32 => {
  let a = (P1 + P2) | 0
  let b = P2
  let c = 0
  let d = -P1 | 0
  let total = 0
  const rest = new Uint8Array(16)
  const restView = new DataView(rest.buffer)
  let resting = 0

  const stripes = (view: DataView, from: number, to: number): void => {
    let [w, x, y, z] = [a, b, c, d]
    for (let at = from; at < to; at += 16) {
      w = round(w, view.getInt32(at, true))
      x = round(x, view.getInt32(at + 4, true))
      y = round(y, view.getInt32(at + 8, true))
      z = round(z, view.getInt32(at + 12, true))
    }
    a = w
    b = x
    c = y
    d = z
  }

  return {
    update: (bytes) => {
      total += bytes.length
      let at = 0
      if (resting > 0) {
        at = Math.min(16 - resting, bytes.length)
        rest.set(bytes.subarray(0, at), resting)
        resting += at
        if (resting < 16) return
        stripes(restView, 0, 16)
        resting = 0
      }
      const whole = at + ((bytes.length - at) & ~15)
      if (whole > at) stripes(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), at, whole)
      rest.set(bytes.subarray(whole))
      resting = bytes.length - whole
    },
    digest: () => {
      let hash = total >= 16 ? (rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18)) | 0 : P5
      hash = (hash + total) | 0
      let at = 0
      for (; at + 4 <= resting; at += 4) hash = Math.imul(rotate((hash + Math.imul(restView.getInt32(at, true), P3)) | 0, 17), P4)
      for (; at < resting; at += 1) hash = Math.imul(rotate((hash + Math.imul(rest[at] as number, P5)) | 0, 11), P1)
      hash = Math.imul(hash ^ (hash >>> 15), P2)
      hash = Math.imul(hash ^ (hash >>> 13), P3)
      return (hash ^ (hash >>> 16)) >>> 0
    },
  }
}

/** XXH32 of `bytes`, seed 0, unsigned. */
export const xxh32 = (bytes: Uint8Array): number => {
  const hash = createXxh32()
  hash.update(bytes)
  return hash.digest()
}
