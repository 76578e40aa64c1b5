import type { FrameCompressor } from '../compression/codec.js'
import { abortable, asBuffer, ordered } from '../storage/bytes.js'
import type { ByteSource } from '../storage/storage.js'

/** Plain bytes of a frame; the last one is shorter. */
export const FRAME_SIZE = 4 * 1024 * 1024

/** Frames in flight at once: two for two threads, and one that is filled meanwhile. */
export const FRAME_WINDOW = 3

/** Cuts `source` into buffers of exactly `size` bytes, the last one shorter. Memory is taken from `free` while there is some. */
export async function* frames(source: ByteSource, size: number = FRAME_SIZE, free: Buffer[] = []): AsyncGenerator<Buffer, void, void> {
  let frame: Buffer | undefined
  let filled = 0
  for await (const bytes of source) {
    const chunk = asBuffer(bytes)
    for (let from = 0; from < chunk.length; ) {
      frame ??= free.pop() ?? Buffer.allocUnsafeSlow(size)
      const copied = chunk.copy(frame, filled, from)
      from += copied
      filled += copied
      if (filled < size) continue
      yield frame
      frame = undefined
      filled = 0
    }
  }
  if (frame !== undefined) yield frame.subarray(0, filled)
}

// An empty stream is one empty frame, as no stock tool takes an empty file for compressed data.
async function* atLeastOne(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
  let none = true
  for await (const frame of source) {
    none = false
    yield frame
  }
  if (none) yield Buffer.alloc(0)
}

export interface CompressOptions {
  /** Frames in flight at once. */
  window?: number
  /** Told of the plain and the compressed size of each frame, in order. */
  onFrame?: (frame: { plain: number; stored: number }) => void
  signal: AbortSignal
}

/** Compresses `source` frame by frame, several at a time, in order; the result is the concatenation of complete frames. Does not close `compressor`. */
export async function* compressFrames(source: ByteSource, compressor: FrameCompressor, options: CompressOptions): AsyncGenerator<Buffer, void, void> {
  const { window = FRAME_WINDOW, onFrame, signal } = options
  // Frames are used again: 4 MiB of new memory for each would be most of what the process holds, and cost page faults.
  const free: Buffer[] = []
  const cut = atLeastOne(frames(abortable(source, signal), FRAME_SIZE, free))
  const compressed = ordered(cut, window, async (frame) => {
    const bytes = await compressor.compress(frame)
    if (frame.length === FRAME_SIZE && bytes.buffer !== frame.buffer) free.push(frame)
    return { plain: frame.length, bytes }
  })
  for await (const { plain, bytes } of compressed) {
    onFrame?.({ plain, stored: bytes.length })
    yield bytes
  }
}
