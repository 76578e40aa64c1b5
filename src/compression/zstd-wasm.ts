import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { createXxh64 } from './xxhash64.js'

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

interface EmscriptenModule extends Binding {
  TOTAL_MEMORY: number
  wasmBinary: Uint8Array
  print(text: string): void
  printErr(text: string): void
  onRuntimeInitialized(): void
}

/**
 * Address space of the module, bytes; only what is used takes memory. The package gives it 16 MiB, too little for level 6 and above
 * and for what `zstd --long` writes; 256 MiB hold the largest window that zstd decodes by itself, 128 MiB.
 */
const MEMORY = 256 * 1024 * 1024
// The import `env.memory` in the binary: minimum and maximum of 256 pages of 64 KiB, in LEB128; and a maximum of 4096 pages.
const MEMORY_IMPORT = Buffer.from('\x03env\x06memory\x02\x01\x80\x02\x80\x02', 'latin1')
const LARGER_MAXIMUM = Buffer.from([0x80, 0x20])

/** The package's binary, out of the script that it is part of, allowed to use `MEMORY`. */
const readBinary = async (script: string): Promise<Uint8Array> => {
  const base64 = /data:application\/octet-stream;base64,([A-Za-z0-9+/=]+)/.exec(await readFile(script, 'latin1'))?.[1]
  const binary = Buffer.from(base64 ?? '', 'base64')
  const at = binary.indexOf(MEMORY_IMPORT)
  if (at < 0) throw new Error('this version of the package zstd-codec is not the one that backupd was made for')
  LARGER_MAXIMUM.copy(binary, at + MEMORY_IMPORT.length - LARGER_MAXIMUM.length)
  return binary
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

const CHECKSUM_FLAG = 0b100

/** Most bytes that a frame of `size` plain bytes takes: ZSTD_COMPRESSBOUND of zstd.h, and a checksum. */
export const compressBound = (size: number): number =>
  size + (size >> 8) + (size < 128 * 1024 ? (128 * 1024 - size) >> 11 : 0) + 4

const load = async (): Promise<ZstdWasm> => {
  const require = createRequire(import.meta.url)
  const script = require.resolve('zstd-codec/lib/zstd-codec-binding-wasm.js')
  const start = require(script) as (module: Partial<EmscriptenModule>) => void
  const silent = (): void => undefined
  const module: Partial<EmscriptenModule> = { TOTAL_MEMORY: MEMORY, wasmBinary: await readBinary(script), print: silent, printErr: silent }
  await new Promise<void>((resolve) => {
    module.onRuntimeInitialized = resolve
    start(module)
  })
  const binding = module as EmscriptenModule
  const codec = new binding.ZstdCodec()
  const checksum = createXxh64()
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
    compress: (plain, output, level) => {
      const length = run(plain, output, compressBound(plain.length), () => codec.compress(target, source, level))
      // The module's one-shot call adds no checksum: the flag in the header, and four bytes at the end (RFC 8878, 3.1.1).
      output[4] = (output[4] as number) | CHECKSUM_FLAG
      const view = new DataView(output.buffer, output.byteOffset)
      view.setUint32(length, Number(checksum(plain) & 0xffffffffn), true)
      return length + 4
    },
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

/** A level to compress with, or the plain size of the one whole frame to decompress. */
export type ZstdWork = { level: number } | { size: number }

/** Does `work` on `input`; gives the number of bytes written to `output`. */
export const workInWasm = async (work: ZstdWork, input: Uint8Array, output: Uint8Array): Promise<number> => {
  const zstd = await loadZstdWasm()
  return 'level' in work ? zstd.compress(input, output, work.level) : zstd.decompress(input, output, work.size)
}
