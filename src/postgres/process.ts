import { spawn, type ChildProcess } from 'node:child_process'
import type { Writable } from 'node:stream'
import { abortError, asBackupdError, BackupdError, throwIfAborted } from '../errors.js'
import { redact } from '../secret.js'
import type { ByteSource } from '../storage/storage.js'
import { findStdbuf } from './tools.js'
import { toolFailure } from './toolfailure.js'

/** A program to run, without a shell. */
export interface Tool {
  /** For messages. */
  name: string
  path: string
  args: readonly string[]
  env: Record<string, string>
  /** Code of the error when it fails, such as `dump.failed`. */
  failure: string
  signal: AbortSignal
  /** Called for each line that it writes to stderr. */
  onLine?: ((line: string) => void) | undefined
}

const KEPT_LINES = 20
const LINE_LENGTH = 1000
// A program that does not end on SIGTERM within this is ended by force.
const GRACE = 5_000

interface Running {
  child: ChildProcess
  /** Resolves when it has ended with 0, rejects with its failure otherwise; handled, so that nobody has to wait. */
  ended: Promise<void>
  /** Ends it and all it started, and waits. */
  kill(): Promise<void>
}

const tail = (child: ChildProcess, onLine: ((line: string) => void) | undefined): string[] => {
  const lines: string[] = []
  let rest = ''
  const take = (line: string): void => {
    const clean = redact(line.slice(0, LINE_LENGTH))
    lines.push(clean)
    if (lines.length > KEPT_LINES) lines.shift()
    onLine?.(clean)
  }
  child.stderr?.setEncoding('utf8')
  child.stderr?.on('data', (text: string) => {
    const pieces = (rest + text).split('\n')
    rest = (pieces.pop() ?? '').slice(0, LINE_LENGTH)
    for (const piece of pieces) take(piece)
  })
  child.stderr?.once('end', () => {
    if (rest !== '') take(rest)
  })
  return lines
}

// The group, because stdbuf or pg_restore's workers stand between; it may be gone already.
const signalGroup = (child: ChildProcess, name: NodeJS.Signals): void => {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, name)
  } catch {
    // Nobody left to signal.
  }
}

const start = (tool: Tool, stdin: 'pipe' | 'ignore', command: [string, ...string[]]): Running => {
  throwIfAborted(tool.signal)
  const [path, ...args] = command
  const child = spawn(path, args, { env: tool.env, stdio: [stdin, 'pipe', 'pipe'], detached: true })
  const stderr = tail(child, tool.onLine)
  let timer: NodeJS.Timeout | undefined
  const stop = (): void => {
    if (timer !== undefined || child.exitCode !== null || child.signalCode !== null) return
    signalGroup(child, 'SIGTERM')
    timer = setTimeout(() => signalGroup(child, 'SIGKILL'), GRACE)
    timer.unref()
  }
  tool.signal.addEventListener('abort', stop)
  const ended = new Promise<void>((resolve, reject) => {
    child.once('error', (error) => {
      reject(new BackupdError(tool.failure, `${tool.name} cannot be started: ${error.message}`, { cause: error, hint: `Check ${tool.path}.` }))
    })
    child.once('close', (exitCode, signal) => {
      clearTimeout(timer)
      tool.signal.removeEventListener('abort', stop)
      if (tool.signal.aborted) reject(abortError(tool.signal))
      else if (exitCode === 0) resolve()
      else reject(toolFailure(tool.failure, tool.name, { exitCode, signal, stderr }))
    })
  })
  ended.catch(() => undefined)
  const kill = async (): Promise<void> => {
    stop()
    child.stdin?.destroy()
    child.stdout?.destroy()
    await ended.catch(() => undefined)
  }
  return { child, ended, kill }
}

/**
 * What `tool` writes to stdout. The source ends only when the program has ended with exit code 0; otherwise it throws
 * `tool.failure` with exit code, signal and the last lines of stderr in `details`, also when all bytes had come.
 * `inLargeBlocks` starts it through stdbuf where that is there: fewer and larger reads for us.
 */
export async function* toolOutput(tool: Tool, { inLargeBlocks = false } = {}): AsyncGenerator<Buffer> {
  const stdbuf = inLargeBlocks ? await findStdbuf() : undefined
  const running = start(tool, 'ignore', stdbuf === undefined ? [tool.path, ...tool.args] : [stdbuf, '-o1M', tool.path, ...tool.args])
  try {
    if (running.child.stdout) for await (const chunk of running.child.stdout) yield chunk as Buffer
    await running.ended
  } catch (error) {
    throwIfAborted(tool.signal)
    throw asBackupdError(error, tool.failure, tool.name)
  } finally {
    await running.kill()
  }
}

/** Runs `tool` to its end and gives what it wrote to stdout, at most `limit` bytes. */
export const toolText = async (tool: Tool, limit = 64 * 1024 * 1024): Promise<string> => {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of toolOutput(tool)) {
    size += chunk.length
    if (size > limit) throw new BackupdError(tool.failure, `${tool.name} writes more than ${limit} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** What `feedTool` is fed with and gives back. */
export interface Feed {
  source: ByteSource
  /** Gets each chunk of stdout; default: thrown away. */
  onOutput?: (chunk: Buffer) => void
}

/**
 * Runs `tool` with `source` on its stdin, waiting where it reads slowly. An error of the source ends the program and is what is
 * thrown; a program that fails first ends the source. One that ends well before the source does not: that is read to its end, so that
 * its last checks are not missed.
 */
export const feedTool = async (tool: Tool, { source, onOutput }: Feed): Promise<void> => {
  const running = start(tool, 'pipe', [tool.path, ...tool.args])
  const { child, ended } = running
  const stdin = child.stdin as Writable
  // A broken pipe says less than the exit code, which follows.
  stdin.on('error', () => undefined)
  child.stdout?.on('data', (chunk: Buffer) => onOutput?.(chunk))
  const chunks = source[Symbol.asyncIterator]()
  const state: { over: 'no' | 'well' | 'badly'; wake: () => void } = { over: 'no', wake: () => undefined }
  const end = (over: 'well' | 'badly') => (): void => {
    state.over = over
    state.wake()
  }
  ended.then(end('well'), end('badly'))
  // Waits until `waiting` has called back or the program has ended. A race with `ended` would keep every chunk until that ends.
  const either = (waiting: (wake: () => void) => void): Promise<void> =>
    new Promise((resolve) => {
      state.wake = resolve
      if (state.over === 'no') waiting(resolve)
      else resolve()
    })
  const room = async (): Promise<void> => {
    let drained = (): void => undefined
    await either((wake) => stdin.once('drain', (drained = wake)))
    stdin.off('drain', drained)
  }
  let done = false
  try {
    while (!done) {
      const next = chunks.next()
      await either((wake) => void next.then(wake, wake))
      if (state.over === 'badly') {
        next.catch(() => undefined)
        break
      }
      const result = await next
      done = result.done === true
      if (result.done !== true && state.over === 'no' && !stdin.write(result.value)) await room()
    }
    if (done) stdin.end()
    await ended
  } catch (error) {
    throwIfAborted(tool.signal)
    throw error
  } finally {
    // Not waited for: it may be stuck in a read that only the caller's signal ends.
    if (!done) void Promise.resolve(chunks.return?.()).catch(() => undefined)
    await running.kill()
  }
}
