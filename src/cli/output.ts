import { BackupdError, messageOf } from '../errors.js'
import { redact } from '../secret.js'

export type Row = Record<string, unknown>

/** Where a command's answer goes: readable text, or one JSON document with `--json`. */
export interface Output {
  readonly json: boolean
  /** The answer. `human` is asked only when the answer is for a reader. Call it once. */
  result(document: unknown, human: () => string): void
  /** A line for the reader on the way to the answer; stderr with `--json`. */
  line(text: string): void
  /** Text of an export, as it is: cleaned by whoever made it, value by value. Resolves when there is room for more. */
  data(text: string): Promise<void>
  /** Says what went wrong and what to do. */
  failure(error: unknown): void
}

const cell = (value: unknown): string => {
  if (value === null || value === undefined || value === '') return '-'
  if (value instanceof Date) return value.toISOString().replace(/\.\d+Z$/, 'Z')
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

/** Rows under headings, columns padded; `empty` when there are none. */
export const table = (columns: readonly string[], rows: readonly Row[], empty: string): string => {
  if (rows.length === 0) return empty
  const grid = [columns.map((name) => name.toUpperCase().replaceAll('_', ' ')), ...rows.map((row) => columns.map((name) => cell(row[name])))]
  const widths = columns.map((_, at) => Math.max(...grid.map((line) => line[at]?.length ?? 0)))
  return grid.map((line) => line.map((text, at) => text.padEnd(widths[at] ?? 0)).join('  ').trimEnd()).join('\n')
}

/** One fact per line, names padded; facts that are undefined are left out. */
export const facts = (record: Row): string => {
  const entries = Object.entries(record).filter(([, value]) => value !== undefined)
  const width = Math.max(0, ...entries.map(([name]) => name.length))
  return entries.map(([name, value]) => `${name.replaceAll('_', ' ').padEnd(width)}  ${cell(value)}`).join('\n')
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const

/** Bytes for a reader: `12.3 MiB`. */
export const bytes = (count: number): string => {
  const step = Math.min(units.length - 1, count < 1 ? 0 : Math.floor(Math.log2(count) / 10))
  return step === 0 ? `${count} B` : `${(count / 1024 ** step).toFixed(1)} ${units[step]}`
}

const errorDocument = (error: unknown): Row =>
  error instanceof BackupdError
    ? { code: error.code, message: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }), ...(error.details === undefined ? {} : { details: error.details }) }
    : { code: 'internal', message: messageOf(error) }

/** Output to the given streams; everything is cleaned of known secrets on its way. */
export const createOutput = (json: boolean, stdout: NodeJS.WritableStream, stderr: NodeJS.WritableStream): Output => {
  let answered = false
  const print = (stream: NodeJS.WritableStream, text: string): void => void stream.write(`${redact(text)}\n`)
  const document = (value: unknown): void => {
    answered = true
    print(stdout, JSON.stringify(value, null, 2))
  }
  return {
    json,
    result: (value, human) => (json ? document(value) : print(stdout, human())),
    line: (text) => print(json ? stderr : stdout, text),
    data: (text) => new Promise((resolve, reject) => void stdout.write(text, (error) => (error == null ? resolve() : reject(error)))),
    failure: (error) => {
      print(stderr, `backupd: ${messageOf(error)}`)
      if (error instanceof BackupdError) {
        const stderrLines = error.details?.['stderr']
        if (Array.isArray(stderrLines)) for (const line of stderrLines) print(stderr, `  | ${String(line)}`)
        if (error.hint !== undefined) print(stderr, `  ${error.hint}`)
      }
      if (json && !answered) document({ error: errorDocument(error) })
    },
  }
}
