import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import type { Writable } from 'node:stream'
import fc from 'fast-check'
import { BackupdError } from '../../src/errors.js'
import type { ByteSource } from '../../src/storage/storage.js'

/** A signal that is never aborted. */
export const never = new AbortController().signal

/** Everything that `source` gives. */
export const collect = async (source: ByteSource): Promise<Buffer> => {
  const pieces: Uint8Array[] = []
  for await (const piece of source) pieces.push(piece)
  return Buffer.concat(pieces)
}

/** `bytes` in pieces of `sizes`, over and over. */
export async function* inPieces(bytes: Buffer, sizes: readonly number[] = [64 * 1024]): AsyncGenerator<Buffer> {
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const size = sizes[turn % sizes.length] as number
    yield bytes.subarray(at, at + size)
    at += size
  }
}

/** Ways to cut a stream, a few single bytes among them. */
export const chunkings = fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 100_000 })), { minLength: 1, maxLength: 8 })

/** Text like rows of a table: compressible, and never quite the same. */
export const rows = (length: number, seed = 1): Buffer => {
  const out = Buffer.allocUnsafe(length)
  let state = seed
  let at = 0
  for (let row = 0; at < length; row += 1) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    at += out.write(`${row}\t${state.toString(36)}\t2026-11-23 ${state % 24}:00:00+00\tcustomer ${state % 977}\torder shipped\t${(state % 99991) / 100}\n`, at)
  }
  return out
}

/** Bytes that nothing makes smaller. */
export const noise = (length: number): Buffer => randomBytes(length)

/** What a call failed with; throws when it did not fail with a BackupdError. */
export const failureOf = async (call: () => Promise<unknown>): Promise<BackupdError> => {
  try {
    await call()
  } catch (error) {
    if (error instanceof BackupdError) return error
    throw error
  }
  throw new Error('it did not fail')
}

const drained = (stream: Writable): Promise<void> =>
  new Promise((resolve) => {
    const done = (): void => {
      stream.off('drain', done).off('close', done)
      resolve()
    }
    stream.on('drain', done).on('close', done)
  })

/** Runs a stock tool with `input` on its stdin and gives its stdout; fails with its stderr. A tool that is not installed is a failure. */
export const tool = async (command: readonly string[], input: ByteSource = inPieces(Buffer.alloc(0))): Promise<Buffer> => {
  const [program, ...args] = command as [string, ...string[]]
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  let stderr = ''
  child.stderr.on('data', (text: Buffer) => (stderr += text.toString()))
  child.stdin.on('error', () => undefined)
  const feed = async (): Promise<void> => {
    for await (const piece of input) if (!child.stdin.write(piece)) await drained(child.stdin)
    child.stdin.end()
  }
  const closed = once(child, 'close') as Promise<[number | null]>
  const [out, [code]] = await Promise.all([collect(child.stdout), closed, feed()])
  if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}: ${stderr}`)
  return out
}

/** What a shell command prints, as it comes. */
export async function* shell(command: string): AsyncGenerator<Buffer> {
  const child = spawn('bash', ['-o', 'pipefail', '-c', command], { stdio: ['ignore', 'pipe', 'inherit'] })
  const closed = once(child, 'close') as Promise<[number | null]>
  try {
    for await (const piece of child.stdout) yield piece as Buffer
    const [code] = await closed
    if (code !== 0) throw new Error(`${command} ended with ${code}`)
  } finally {
    if (child.exitCode === null) child.kill('SIGKILL')
    await closed
  }
}

export interface Measured {
  bytes: number
  sha256: string
  /** Largest single chunk, bytes. */
  largest: number
  /** By how much resident memory grew at most, bytes. */
  grown: number
}

/** Reads `source` to its end without keeping it. */
export const measure = async (source: ByteSource): Promise<Measured> => {
  const hash = createHash('sha256')
  const before = process.memoryUsage.rss()
  let [bytes, largest, peak] = [0, 0, before]
  for await (const piece of source) {
    hash.update(piece)
    bytes += piece.length
    largest = Math.max(largest, piece.length)
    peak = Math.max(peak, process.memoryUsage.rss())
  }
  return { bytes, sha256: hash.digest('hex'), largest, grown: peak - before }
}

/** Threads of this process, worker threads among them. */
export const threads = (): number => readdirSync('/proc/self/task').length

/** A source that tells whether it was closed; it ends after `bytes`, or with `error`, or waits for ever. */
export const watched = (pieces: Iterable<Buffer>, end: 'end' | 'wait' | Error = 'end'): { source: ByteSource; closed(): boolean } => {
  let closed = false
  const iterator = pieces[Symbol.iterator]()
  return {
    closed: () => closed,
    source: {
      [Symbol.asyncIterator]: () => ({
        next: async () => {
          const piece = iterator.next()
          if (piece.done !== true) return { done: false, value: piece.value }
          if (end === 'wait') return new Promise<never>(() => undefined)
          closed = true
          if (end === 'end') return { done: true, value: undefined }
          throw end
        },
        return: async () => {
          closed = true
          return { done: true, value: undefined }
        },
      }),
    },
  }
}
