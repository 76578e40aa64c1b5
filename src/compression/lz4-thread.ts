import { encodeFrame } from './lz4-frame.js'
import { loadLz4 } from './lz4-native.js'
import { serve } from './thread.js'
import { xxh32 } from './xxhash32.js'

export interface Lz4Job {
  level: number
  bytes: Uint8Array
}

serve(async ({ bytes, level }: Lz4Job) => encodeFrame(await loadLz4(), xxh32, bytes, level))
