import { serve } from './thread.js'
import { loadZstdWasm } from './zstd-wasm.js'

/** A level to compress with, or the plain size of the one whole frame to decompress. */
export type ZstdWork = { level: number } | { size: number }

serve<ZstdWork>(async (work, input, output) => {
  const zstd = await loadZstdWasm()
  return 'level' in work ? zstd.compress(input, output, work.level) : zstd.decompress(input, output, work.size)
})
