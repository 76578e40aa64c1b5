import { xxh32 } from './xxhash32.js'
import { loadLz4 } from './lz4-native.js'
import { encodeFrame } from './lz4-frame.js'
import { loadZstdWasm } from './zstd-wasm.js'

/** What a thread of the pool is asked for. */
export type Job =
  | { kind: 'lz4.compress'; level: number; bytes: Uint8Array }
  | { kind: 'zstd.compress'; level: number; bytes: Uint8Array }
  /** One whole frame, `size` plain bytes. */
  | { kind: 'zstd.decompress'; size: number; bytes: Uint8Array }

/** Does one job; runs in a thread of the pool. */
export const work = async (job: Job): Promise<Uint8Array> => {
  switch (job.kind) {
    case 'lz4.compress':
      return encodeFrame(await loadLz4(), xxh32, job.bytes, job.level)
    case 'zstd.compress':
      return (await loadZstdWasm()).compress(job.bytes, job.level)
    case 'zstd.decompress':
      return (await loadZstdWasm()).decompress(job.bytes, job.size)
  }
}
