import { abortable } from '../storage/bytes.js'
import type { Codec } from './codec.js'
import { checkedLevel } from './levels.js'

/** The bytes as they are. */
export const none: Codec = {
  type: 'none',
  suffix: '',
  levels: { min: 0, max: 0, default: 0 },
  unavailable: () => Promise.resolve(undefined),
  compressor: async ({ level }) => {
    checkedLevel(none, level)
    return { compress: (frame) => Promise.resolve(frame), close: () => Promise.resolve() }
  },
  decompress: (source, { signal }) => abortable(source, signal),
}
