import { createRequire } from 'node:module'

// What is used of the package's inner module, which has no types. A negative size, or false, is an error of zstd.
interface Vector {
  resize(size: number, fill: number): void
  size(): number
}
interface ZstdStream {
  begin(): boolean
  transform(bytes: Uint8Array, give: (plain: Uint8Array) => void): boolean
  delete(): void
}
interface Binding {
  VectorU8: new () => Vector
  ZstdCodec: new () => {
    compress(target: Vector, source: Vector, level: number): number
    decompress(target: Vector, source: Vector): number
  }
  ZstdDecompressStreamBinding: new () => ZstdStream
  cloneToVector(target: Vector, bytes: Uint8Array): void
  /** A view into the memory of the module, valid until its next call. */
  toTypedArrayView(vector: Vector): Uint8Array
}

/** One frame that is decompressed piece by piece. */
export interface ZstdWasmStream {
  /** Plain bytes of the next piece of the frame. */
  push(bytes: Uint8Array): Buffer
  close(): void
}

/** Zstandard in WebAssembly, for a Node whose zlib has none. Its calls hold up the thread they run on. */
export interface ZstdWasm {
  /** Writes one frame to `output`, which has room for `compressBound`; gives its length. */
  compress(plain: Uint8Array, output: Uint8Array, level: number): number
  /** Writes the `size` plain bytes of one whole frame to `output`; gives `size`. */
  decompress(frame: Uint8Array, output: Uint8Array, size: number): number
  stream(): ZstdWasmStream
}

/** Most bytes that a frame of `size` plain bytes takes: ZSTD_COMPRESSBOUND of zstd.h. */
export const compressBound = (size: number): number =>
  size + (size >> 8) + (size < 128 * 1024 ? (128 * 1024 - size) >> 11 : 0)

const load = async (): Promise<ZstdWasm> => {
  const require = createRequire(import.meta.url)
  const inner = require('zstd-codec/lib/module.js') as { run(ready: (binding: { wrapped: Binding }) => void): void }
  // The module has a method `then`, so a promise must not be resolved with it bare.
  const { wrapped: binding } = await new Promise<{ wrapped: Binding }>((resolve) => {
    inner.run((ready) => resolve({ wrapped: ready as unknown as Binding }))
  })
  const codec = new binding.ZstdCodec()
  // Kept from call to call, so that the module's memory does not grow with every frame. The target only ever grows.
  const source = new binding.VectorU8()
  const target = new binding.VectorU8()
  const run = (input: Uint8Array, output: Uint8Array, room: number, call: () => number): number => {
    binding.cloneToVector(source, input)
    if (target.size() < room) target.resize(room, 0)
    const length = call()
    if (length < 0) throw new Error('zstd refused the data')
    output.set(binding.toTypedArrayView(target).subarray(0, length))
    return length
  }
  return {
    compress: (plain, output, level) => run(plain, output, compressBound(plain.length), () => codec.compress(target, source, level)),
    decompress: (frame, output, size) => {
      const length = run(frame, output, size, () => codec.decompress(target, source))
      if (length !== size) throw new Error(`${length} bytes came out where the frame says ${size}`)
      return length
    },
    stream: () => {
      const stream = new binding.ZstdDecompressStreamBinding()
      stream.begin()
      return {
        push: (bytes) => {
          const pieces: Buffer[] = []
          // What is given is a view into the module's memory.
          if (!stream.transform(bytes, (plain) => void pieces.push(Buffer.from(plain)))) throw new Error('zstd refused the data')
          return pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces)
        },
        close: () => stream.delete(),
      }
    },
  }
}

let loading: Promise<ZstdWasm> | undefined

/** Starts the module, once per thread. */
export const loadZstdWasm = (): Promise<ZstdWasm> => (loading ??= load())
