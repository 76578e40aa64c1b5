import { availableParallelism } from 'node:os'
import { abortable, createReader, type ByteReader } from '../storage/bytes.js'
import type { ByteSource } from '../storage/storage.js'
import type { Codec } from './codec.js'
import { corrupt } from './errors.js'
import { checkedLevel } from './levels.js'
import { createPool } from './pool.js'
import { skippable } from './skippable.js'
import { throughTransform } from './transform.js'
import { MAGIC, readBlocks, readStart } from './zstd-frame.js'
import { zstdNative } from './zstd-native.js'
import { compressBound, loadZstdWasm, workInWasm } from './zstd-wasm.js'

/** Frames up to this many plain bytes are decompressed whole and side by side; larger ones, as the `zstd` command makes, piece by piece. */
const WHOLE = 8 * 1024 * 1024
/** As the `zstd` command without --long. */
const LARGEST_WINDOW = 128 * 1024 * 1024
/** Frames in flight when reading: one ahead of the threads. */
const READ_WINDOW = Math.min(4, availableParallelism() + 1)
const threadScript = new URL('./zstd-thread.js', import.meta.url)

const damaged = (why: string, cause?: unknown): Error => corrupt('zstd', why, cause)

async function* joined(first: Buffer[], rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
  yield* first
  yield* rest
}

const exactly = async (reader: ByteReader, length: number): Promise<Buffer> => {
  const bytes = await reader.read(length)
  if (bytes.length < length) throw damaged('it ends in the middle of a frame')
  return bytes
}

/** Decompresses whole frames of known largest size. */
interface FrameDecoder {
  whole(frame: Buffer, limit: number): Promise<Buffer>
  pieces(source: ByteSource): ByteSource
  close(): Promise<void>
}

const refused = (error: unknown): Error => damaged('a frame cannot be decompressed', error)

async function* wasmPieces(source: ByteSource): AsyncGenerator<Buffer, void, void> {
  const stream = (await loadZstdWasm()).stream()
  try {
    for await (const piece of source) {
      let plain: Buffer
      try {
        plain = stream.push(piece)
      } catch (error) {
        throw refused(error)
      }
      if (plain.length > 0) yield plain
    }
  } finally {
    stream.close()
  }
}

const frameDecoder = (): FrameDecoder => {
  const native = zstdNative
  if (native !== undefined) {
    return {
      whole: (frame, limit) => native.decompress(frame, limit).catch((error: unknown) => Promise.reject(refused(error))),
      pieces: (source) => throughTransform(source, native.decompressStream(), refused),
      close: () => Promise.resolve(),
    }
  }
  const pool = createPool(READ_WINDOW - 1, threadScript, workInWasm)
  return {
    whole: (bytes, size) => pool.run({ work: { size }, input: bytes, room: size }).catch((error: unknown) => Promise.reject(refused(error))),
    pieces: wasmPieces,
    close: () => pool.close(),
  }
}

/** The next frame: all of it where it says that it is small, and else its pieces as they come. */
const nextFrame = async (reader: ByteReader): Promise<{ bytes: Buffer; size: number } | { pieces: ByteSource }> => {
  const start = await readStart(reader, exactly)
  if (start === undefined) throw damaged('the header of a frame is wrong')
  if (start.window > LARGEST_WINDOW) {
    throw damaged(`a frame asks for ${Math.ceil(start.window / 2 ** 20)} MiB of memory, more than the 128 MiB of zstd; if it was made so on purpose, zstd -d --long=31 reads it`)
  }
  const blocks = readBlocks(reader, start, exactly, damaged)
  const pieces = [start.bytes]
  if (start.contentSize === undefined || start.contentSize > WHOLE) return { pieces: joined(pieces, blocks) }
  let held = 0
  for (;;) {
    const block = await blocks.next()
    if (block.done === true) return { bytes: Buffer.concat(pieces), size: Number(start.contentSize) }
    pieces.push(block.value)
    held += block.value.length
    // A size in the header that is a lie must not make us hold more than a small frame takes.
    if (held > 2 * WHOLE) return { pieces: joined(pieces, blocks) }
  }
}

async function* decompress(source: ByteSource, signal: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
  const reader = createReader(abortable(source, signal))
  const decoder = frameDecoder()
  const running: Promise<Buffer>[] = []
  try {
    if (await reader.atEnd()) throw damaged('it is empty')
    while (!(await reader.atEnd())) {
      const magic = (await exactly(reader, 4)).readUInt32LE()
      if (await skippable(reader, magic, exactly)) continue
      if (magic !== MAGIC) throw damaged('what should be a frame is not one')
      const frame = await nextFrame(reader)
      if ('bytes' in frame) {
        const plain = decoder.whole(frame.bytes, frame.size)
        // It is awaited when its turn comes; until then a failure must not count as unhandled.
        plain.catch(() => undefined)
        running.push(plain)
      }
      while (running.length >= ('bytes' in frame ? READ_WINDOW : 1)) yield await (running.shift() as Promise<Buffer>)
      if ('pieces' in frame) yield* decoder.pieces(frame.pieces)
    }
    while (running.length > 0) yield await (running.shift() as Promise<Buffer>)
  } finally {
    await Promise.allSettled([...running, reader.close()])
    await decoder.close()
  }
}

/** Zstandard frames (RFC 8878): by Node's own zlib where it has them, and else by WebAssembly in threads. */
export const zstd: Codec = {
  type: 'zstd',
  suffix: '.zst',
  levels: { min: 1, max: 22, default: 3 },
  unavailable: () => Promise.resolve(undefined),
  compressor: async ({ level: wanted, concurrency }) => {
    const level = checkedLevel(zstd, wanted)
    const native = zstdNative
    if (native !== undefined) {
      const frames = native.compressor(level)
      return { compress: frames.compress, close: async () => frames.close() }
    }
    const pool = createPool(concurrency, threadScript, workInWasm)
    return { compress: (bytes) => pool.run({ work: { level }, input: bytes, room: compressBound(bytes.length) }), close: () => pool.close() }
  },
  decompress: (source, { signal }) => decompress(source, signal),
}
