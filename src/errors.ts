import { inspect } from 'node:util'

/** Process exit codes, by the kind of failure. Documented in `backupd --help`. */
export const exitCodes = {
  failed: 1,
  usage: 2,
  notFound: 3,
  configuration: 4,
  integrity: 5,
} as const

export type FailureKind = keyof typeof exitCodes

export interface FailureOptions {
  /** Decides the exit code. Default `failed`. */
  kind?: FailureKind
  /** Whether the same call may succeed later without anybody changing anything. Default false. */
  retryable?: boolean
  /** What the user can do about it, one sentence. */
  hint?: string
  /** Facts for `error_details`; never a secret. */
  details?: Record<string, unknown>
  cause?: unknown
}

/** Every failure that a user meets: what failed, on what, what to do next, and a stable `code` such as `storage.no_bucket`. */
export class BackupdError extends Error {
  readonly code: string
  readonly kind: FailureKind
  readonly retryable: boolean
  readonly hint: string | undefined
  readonly details: Record<string, unknown> | undefined

  constructor(code: string, message: string, options: FailureOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.name = 'BackupdError'
    this.code = code
    this.kind = options.kind ?? 'failed'
    this.retryable = options.retryable ?? false
    this.hint = options.hint
    this.details = options.details
  }
}

/** The exit code that `error` asks for; anything that is not a BackupdError is a plain failure. */
export const exitCodeOf = (error: unknown): number =>
  error instanceof BackupdError ? exitCodes[error.kind] : exitCodes.failed

/** The message of anything that was thrown. */
export const messageOf = (error: unknown): string => {
  if (error instanceof AggregateError && error.message === '') return error.errors.map(messageOf).join('; ')
  return error instanceof Error ? error.message : inspect(error)
}

/** The code of an error of the operating system, such as `ENOENT`; undefined for anything else. */
export const errno = (error: unknown): string | undefined => (error as { code?: string } | undefined)?.code

/** Wraps what a library threw, unless it is one of ours already. */
export const asBackupdError = (error: unknown, code: string, what: string, options: FailureOptions = {}): BackupdError =>
  error instanceof BackupdError ? error : new BackupdError(code, `${what}: ${messageOf(error)}`, { ...options, cause: error })

/** The error an aborted operation ends with; an AbortSignal whose reason is one of ours keeps it. */
export const abortError = (signal: AbortSignal): BackupdError =>
  signal.reason instanceof BackupdError ? signal.reason : new BackupdError('cancelled', 'cancelled', { cause: signal.reason })

/** Throws when `signal` is aborted. */
export const throwIfAborted = (signal: AbortSignal | undefined): void => {
  if (signal?.aborted) throw abortError(signal)
}
