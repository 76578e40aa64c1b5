import { encodeFrame } from './lz4-frame.js'
import { loadLz4 } from './lz4-native.js'
import { serve } from './thread.js'
import { xxh32 } from './xxhash32.js'

/** A level to compress a frame with. */
export type Lz4Work = number

serve<Lz4Work>(async (level, input, output) => encodeFrame(await loadLz4(), xxh32, input, output, level))
