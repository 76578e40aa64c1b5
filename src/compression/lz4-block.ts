// The LZ4 block format: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
const MIN_MATCH = 4

/**
 * Decodes one LZ4 block from `input` into `output` at `start`; matches may reach back into `output` as far as `history`.
 * Gives the end of what was written, or -1 when the block is damaged or does not fit.
 */
export const decodeBlock = (input: Uint8Array, output: Uint8Array, start: number, history: number): number => {
  const end = input.length
  const limit = output.length
  let at = 0
  let to = start
  while (at < end) {
    const token = input[at++] as number

    let literals = token >> 4
    if (literals === 15) {
      let more = 255
      while (more === 255) {
        if (at >= end) return -1
        more = input[at++] as number
        literals += more
      }
    }
    if (at + literals > end || to + literals > limit) return -1
    if (literals > 24) {
      output.set(input.subarray(at, at + literals), to)
      at += literals
      to += literals
    } else {
      for (const stop = at + literals; at < stop; at += 1) output[to++] = input[at] as number
    }
    // The last sequence ends behind its literals.
    if (at === end) return to

    if (at + 2 > end) return -1
    const offset = (input[at] as number) | ((input[at + 1] as number) << 8)
    at += 2
    let from = to - offset
    if (offset === 0 || from < history) return -1
    let length = token & 15
    if (length === 15) {
      let more = 255
      while (more === 255) {
        if (at >= end) return -1
        more = input[at++] as number
        length += more
      }
    }
    length += MIN_MATCH
    if (to + length > limit) return -1
    if (length > 40 && offset >= length) {
      output.copyWithin(to, from, from + length)
      to += length
    } else {
      for (const stop = to + length; to < stop; to += 1) output[to] = output[from++] as number
    }
  }
  // A block never ends with a match, and is never empty.
  return -1
}
