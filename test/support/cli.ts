import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { tmpdir } from 'node:os'
import ts from 'typescript'

const root = fileURLToPath(new URL('../..', import.meta.url))
const cache = join(root, '.cache', 'cli')

const compile = (path: string, text: string): string =>
  ts.transpileModule(text, {
    fileName: path,
    compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, verbatimModuleSyntax: true },
  }).outputText

// What other tests may still be running stays for a day.
const sweep = (): void => {
  for (const name of readdirSync(cache)) {
    const path = join(cache, name)
    if (Date.now() - statSync(path).mtimeMs > 86_400_000) rmSync(path, { recursive: true, force: true })
  }
}

const build = (): string => {
  const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts')).sort()
    .map((path) => ({ path, text: readFileSync(join(root, 'src', path), 'utf8') }))
  const hash = createHash('sha256').update(String(compile))
  for (const { path, text } of files) hash.update(`${path}\0${text}\0`)
  const home = join(cache, hash.digest('hex').slice(0, 20))
  const main = join(home, 'dist', 'main.js')
  mkdirSync(cache, { recursive: true })
  if (existsSync(main)) {
    utimesSync(home, new Date(), new Date())
    return main
  }
  sweep()
  const draft = mkdtempSync(join(cache, 'draft-'))
  for (const { path, text } of files) {
    const target = join(draft, 'dist', path.replace(/\.ts$/, '.js'))
    mkdirSync(dirname(target), { recursive: true })
    writeFileSync(target, compile(path, text))
  }
  for (const beside of ['drizzle', 'package.json']) symlinkSync(join(root, beside), join(draft, beside))
  try {
    renameSync(draft, home)
  } catch (error) {
    // Another test was faster.
    rmSync(draft, { recursive: true, force: true })
    if (!existsSync(main)) throw error
  }
  return main
}

let built: string | undefined

/** The compiled program of the sources as they are, built once for each state of them: `node <this> ARGUMENTS`. */
export const programPath = (): string => (built ??= build())

export interface CliOptions {
  /** Beside PATH and HOME, which is a folder that does not exist; nothing else of this process's environment is passed on. */
  env?: Record<string, string>
  stdin?: string
  /** Sent SIGTERM when it fires. */
  signal?: AbortSignal
  /** Milliseconds until the program is killed and the call rejects, default 120 s. */
  timeout?: number
}

export interface CliResult {
  /** Exit code; null when a signal ended it. */
  code: number | null
  stdout: string
  stderr: string
  /** stdout as JSON. Throws when it is none. */
  json<T = unknown>(): T
}

/** Runs `backupd ARGUMENTS` as a user would, and waits for its end. */
export const runCli = (args: readonly string[], { env = {}, stdin = '', signal, timeout = 120_000 }: CliOptions = {}): Promise<CliResult> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [programPath(), ...args], {
      env: { PATH: process.env['PATH'] ?? '', HOME: join(tmpdir(), `nobody-${randomBytes(4).toString('hex')}`), ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    let late = false
    const timer = setTimeout(() => {
      late = true
      child.kill('SIGKILL')
    }, timeout)
    const stop = (): void => void child.kill('SIGTERM')
    signal?.addEventListener('abort', stop)
    child.stdout.on('data', (block: Buffer) => stdout.push(block))
    child.stderr.on('data', (block: Buffer) => stderr.push(block))
    child.stdin.on('error', () => undefined)
    child.stdin.end(stdin)
    child.on('error', reject)
    child.on('close', (code) => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', stop)
      const out = Buffer.concat(stdout).toString('utf8')
      const err = Buffer.concat(stderr).toString('utf8')
      if (late) return reject(new Error(`backupd ${args.join(' ')} did not end in ${timeout} ms\n${out}\n${err}`))
      resolve({
        code, stdout: out, stderr: err,
        json: <T>(): T => {
          try {
            return JSON.parse(out) as T
          } catch {
            throw new Error(`backupd ${args.join(' ')} did not print one JSON document (exit ${code}):\n${out}\n${err}`)
          }
        },
      })
    })
  })
