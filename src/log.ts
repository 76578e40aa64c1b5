import pino from 'pino'
import { redact } from './secret.js'

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]
export type Log = pino.Logger

export interface LogOptions {
  level: LogLevel
  /** Where lines go. */
  stream: NodeJS.WritableStream
  /** One readable line per event instead of JSON. */
  human: boolean
}

const humanLine = (line: string): string => {
  const { time, level, msg, err, pid: _pid, hostname: _host, ...rest } = JSON.parse(line) as Record<string, unknown>
  const facts = Object.entries(rest).map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
  const message = err === undefined ? msg : `${String(msg)}: ${String((err as { message?: unknown }).message)}`
  return [String(time).slice(11, 19), String(level).toUpperCase().padEnd(5), message, ...facts].join(' ') + '\n'
}

/** A logger whose every line is cleaned of known secrets before it leaves the process. */
export const createLog = ({ level, stream, human }: LogOptions): Log =>
  pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: pino.stdSerializers.errWithCause },
    },
    { write: (line: string) => void stream.write(redact(human ? humanLine(line) : line)) },
  )

/** A logger that says nothing, for tests and pure calls. */
export const silentLog = (): Log => pino({ level: 'silent' })
