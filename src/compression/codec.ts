import type { ByteSource } from '../storage/storage.js'

export const compressionTypes = ['none', 'gzip', 'lz4', 'zstd'] as const
export type CompressionType = (typeof compressionTypes)[number]

/** Turns one frame of plain bytes (at most 4 MiB) into one complete gzip member, LZ4 frame or Zstandard frame. Calls may run concurrently. */
export interface FrameCompressor {
  /** The frame must not change until the result is there, and may be used again then, unless the result is the frame itself. */
  compress(frame: Buffer): Promise<Buffer>
  /** Ends its threads, if it has any. */
  close(): Promise<void>
}

/** One kind of compression. One file each, one line in the registry. */
export interface Codec {
  readonly type: CompressionType
  /** What the name of a part gets: empty, `.gz`, `.lz4` or `.zst`. */
  readonly suffix: string
  readonly levels: { min: number; max: number; default: number }
  /** Why it cannot be used on this machine, or undefined when it can. */
  unavailable(): Promise<string | undefined>
  /** `concurrency`: how many frames will be in flight. Fails with `compression.unavailable`. */
  compressor(options: { level?: number; concurrency: number }): Promise<FrameCompressor>
  /** Decompresses any concatenation of complete members or frames, also of other makers; fails with `compression.corrupt` on anything else, also on a truncated end. Bounded memory. */
  decompress(source: ByteSource, options: { signal: AbortSignal }): ByteSource
}
