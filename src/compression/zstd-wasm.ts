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
    compressBound(size: number): number
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
  compress(plain: Uint8Array, level: number): Uint8Array
  /** One whole frame of `size` plain bytes. */
  decompress(frame: Uint8Array, size: number): Uint8Array
  stream(): ZstdWasmStream
}

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
  const run = (bytes: Uint8Array, room: number, call: () => number): Uint8Array => {
    binding.cloneToVector(source, bytes)
    if (target.size() < room) target.resize(room, 0)
    const length = call()
    if (length < 0) throw new Error('zstd refused the data')
    return binding.toTypedArrayView(target).slice(0, length)
  }
  return {
    compress: (plain, level) => run(plain, codec.compressBound(plain.length), () => codec.compress(target, source, level)),
    decompress: (frame, size) => {
      const plain = run(frame, size, () => codec.decompress(target, source))
      if (plain.length !== size) throw new Error(`${plain.length} bytes came out where the frame says ${size}`)
      return plain
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
