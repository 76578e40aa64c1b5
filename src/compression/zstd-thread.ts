import { serve } from './thread.js'
import { loadZstdWasm } from './zstd-wasm.js'

/** With `level`, plain bytes to compress; with `size`, one whole frame of that many plain bytes to decompress. */
export type ZstdJob = { bytes: Uint8Array } & ({ level: number } | { size: number })

serve(async (job: ZstdJob) => {
  const zstd = await loadZstdWasm()
  return 'level' in job ? zstd.compress(job.bytes, job.level) : zstd.decompress(job.bytes, job.size)
})
