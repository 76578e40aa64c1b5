import { BackupdError, messageOf, type FailureKind } from '../errors.js'

interface FailureClass {
  /** Whether the same request may succeed later by itself. */
  retryable: boolean
  hint: string
  kind?: FailureKind
}

/** Every code a storage fails with, the same for all of them. */
export const failureClasses = {
  'storage.auth': { retryable: false, hint: 'The storage does not accept these credentials: check the account or key, its secret, and that it was not revoked or expired.' },
  'storage.denied': { retryable: false, hint: 'The credentials lack a right for this: compare their policy with the one in docs/storage.md.' },
  'storage.no_bucket': { retryable: false, hint: 'Create the bucket, container or folder, or correct its name in the configuration of the storage.' },
  'storage.not_found': { retryable: false, kind: 'notFound', hint: 'The object is not in the storage (any more).' },
  'storage.unreachable': { retryable: true, hint: 'Check that the server runs and that address, port and firewall let this machine reach it.' },
  'storage.connection_lost': { retryable: true, hint: 'The network or the server broke the connection; try again, and look at the server’s log if it stays so.' },
  'storage.name_not_resolved': { retryable: false, hint: 'Check the spelling of the host or endpoint, and the DNS of this machine.' },
  'storage.timeout': { retryable: true, hint: 'The server did not answer in time; check the network and the load of the server.' },
  'storage.tls': { retryable: false, hint: 'The server’s certificate is not trusted: name its authority in NODE_EXTRA_CA_CERTS, or correct the host name or the certificate.' },
  'storage.clock_skew': { retryable: false, hint: 'The clock of this machine differs too much from the storage’s: synchronise it (for example with chrony or systemd-timesyncd).' },
  'storage.wrong_region': { retryable: false, hint: 'Set the region (or endpoint) of the storage to the one that the bucket is in.' },
  'storage.host_key': { retryable: false, hint: 'Check with the server’s owner whether its key was changed; only then set host_key_sha256 to the new fingerprint.' },
  'storage.disk_full': { retryable: false, hint: 'Free some space at the storage or raise its quota; shorter retention helps too.' },
  'storage.read_only': { retryable: false, hint: 'The file system is mounted read-only: mount it for writing, and check the disk for errors.' },
  'storage.not_mounted': { retryable: false, hint: 'Mount the file system that base_path is meant to be on.' },
  'storage.throttled': { retryable: true, hint: 'The storage asks for fewer requests: lower max_parallel_uploads or run fewer backups at a time.' },
  'storage.unavailable': { retryable: true, hint: 'The storage reports an error of its own; try again later, or see its status page.' },
  'storage.unsupported': { retryable: false, hint: 'The storage does not support this request; see docs/storage.md for services that need other settings.' },
  'storage.rejected': { retryable: false, hint: 'The storage refuses the request as it is; check the configuration of the storage.' },
  'storage.changed': { retryable: false, hint: 'Somebody else replaced or removed the object meanwhile.' },
  'storage.incomplete': { retryable: true, hint: 'The storage delivered or kept other bytes than it was asked for; try again, and look at the network and the server.' },
  'storage.checksum': { retryable: true, hint: 'The bytes were changed on their way; look at the network and at the memory and disks of the server.' },
  'storage.locked': { retryable: false, hint: 'The object is under a retention lock or legal hold; it can be removed after that has ended.' },
  'storage.archived': { retryable: false, hint: 'The object lies in an archive tier: have the service restore it first, then try again.' },
  'storage.too_large': { retryable: false, hint: 'The object is larger than the storage allows; back up with several parts, or exclude something.' },
  'storage.key_invalid': { retryable: false, hint: 'Use a relative name without empty, “.” or “..” parts and without control characters.' },
  'storage.config_invalid': { retryable: false, kind: 'configuration', hint: 'Correct the configuration of the storage; docs/storage.md lists the keys of each type.' },
  'storage.missing_package': { retryable: false, kind: 'configuration', hint: 'Install the dependencies of backupd again (npm ci).' },
  'storage.failed': { retryable: false, hint: 'See the message for what the storage said.' },
} as const satisfies Record<string, FailureClass>
export type StorageCode = keyof typeof failureClasses

export interface StorageErrorOptions {
  cause?: unknown
  /** Instead of the one of the class. */
  hint?: string
  /** Instead of the one of the class. */
  retryable?: boolean
  /** How long the server asked to wait before the next attempt, milliseconds. */
  retryAfter?: number
  details?: Record<string, unknown>
}

/** An error of the class `code`, with its hint, exit code and whether to try again. */
export const storageError = (code: StorageCode, message: string, options: StorageErrorOptions = {}): BackupdError => {
  const found: FailureClass = failureClasses[code]
  const details = { ...options.details, ...(options.retryAfter === undefined ? {} : { retryAfter: options.retryAfter }) }
  return new BackupdError(code, message, {
    kind: found.kind ?? 'failed',
    retryable: options.retryable ?? found.retryable,
    hint: options.hint ?? found.hint,
    ...(Object.keys(details).length === 0 ? {} : { details }),
    cause: options.cause,
  })
}

/** Whether `error` is ours and has one of these codes. */
export const hasCode = (error: unknown, ...codes: StorageCode[]): error is BackupdError =>
  error instanceof BackupdError && (codes as string[]).includes(error.code)

const systemCodes: Record<string, StorageCode> = {
  ENOTFOUND: 'storage.name_not_resolved', EAI_AGAIN: 'storage.name_not_resolved', EAI_NODATA: 'storage.name_not_resolved',
  ECONNREFUSED: 'storage.unreachable', EHOSTUNREACH: 'storage.unreachable', ENETUNREACH: 'storage.unreachable', EHOSTDOWN: 'storage.unreachable',
  EADDRNOTAVAIL: 'storage.unreachable', ENETDOWN: 'storage.unreachable',
  ECONNRESET: 'storage.connection_lost', EPIPE: 'storage.connection_lost', ECONNABORTED: 'storage.connection_lost',
  ERR_STREAM_PREMATURE_CLOSE: 'storage.connection_lost', ERR_STREAM_DESTROYED: 'storage.connection_lost', HPE_INVALID_EOF_STATE: 'storage.connection_lost',
  UND_ERR_SOCKET: 'storage.connection_lost', HPE_CLOSED_CONNECTION: 'storage.connection_lost', HPE_INVALID_CONSTANT: 'storage.connection_lost',
  ETIMEDOUT: 'storage.timeout', ESOCKETTIMEDOUT: 'storage.timeout', TIMEOUT: 'storage.timeout',
  ENOSPC: 'storage.disk_full', EDQUOT: 'storage.disk_full', EFBIG: 'storage.too_large',
  EROFS: 'storage.read_only', EACCES: 'storage.denied', EPERM: 'storage.denied',
  EPROTO: 'storage.tls', ERR_TLS_CERT_ALTNAME_INVALID: 'storage.tls', CERT_HAS_EXPIRED: 'storage.tls', CERT_NOT_YET_VALID: 'storage.tls',
  CERT_UNTRUSTED: 'storage.tls', CERT_REJECTED: 'storage.tls', CERT_REVOKED: 'storage.tls', HOSTNAME_MISMATCH: 'storage.tls',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'storage.tls', SELF_SIGNED_CERT_IN_CHAIN: 'storage.tls', UNABLE_TO_GET_ISSUER_CERT: 'storage.tls',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'storage.tls', UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'storage.tls', INVALID_CA: 'storage.tls',
}

const codesOf = function* (error: unknown, depth = 0): Generator<string> {
  if (typeof error !== 'object' || error === null || depth > 5) return
  const { code, cause, errors } = error as { code?: unknown; cause?: unknown; errors?: unknown }
  if (typeof code === 'string') yield code
  yield* codesOf(cause, depth + 1)
  if (Array.isArray(errors)) for (const inner of errors) yield* codesOf(inner, depth + 1)
}

/** The class of an error of the operating system, of Node's network or TLS layer, looking through `cause` and `errors`; undefined when it is none. */
export const systemFailure = (error: unknown): { code: StorageCode; retryable?: boolean } | undefined => {
  for (const code of codesOf(error)) {
    const found = systemCodes[code]
    // A resolver that cannot be reached may be back soon; a name that does not exist will not.
    if (found !== undefined) return code === 'EAI_AGAIN' ? { code: found, retryable: true } : { code: found }
    if (code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_')) return { code: 'storage.tls' }
    if (code.startsWith('HPE_')) return { code: 'storage.connection_lost' }
  }
  return undefined
}

/** The class of an HTTP status that the service's own error code says nothing more exact about; undefined for success. */
export const httpFailure = (status: number): StorageCode | undefined => {
  if (status < 400) return undefined
  const exact: Record<number, StorageCode> = {
    401: 'storage.auth', 403: 'storage.denied', 404: 'storage.not_found', 408: 'storage.timeout', 409: 'storage.changed', 411: 'storage.unsupported',
    412: 'storage.changed', 413: 'storage.too_large', 425: 'storage.throttled', 429: 'storage.throttled', 501: 'storage.unsupported', 503: 'storage.throttled',
    504: 'storage.timeout', 507: 'storage.disk_full',
  }
  return exact[status] ?? (status >= 500 ? 'storage.unavailable' : 'storage.rejected')
}

/** Milliseconds that a `Retry-After` header (seconds or a date, RFC 9110 10.2.3) asks for. */
export const retryAfter = (header: string | undefined, now = Date.now()): number | undefined => {
  if (header === undefined) return undefined
  if (/^\s*\d+\s*$/.test(header)) return Number(header) * 1000
  const date = Date.parse(header)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}

/** What a backend throws for anything it did not recognise itself: the system's class when there is one, else `storage.failed`. */
export const unknownFailure = (error: unknown, what: string): BackupdError => {
  if (error instanceof BackupdError) return error
  const found = systemFailure(error)
  const retryable = found?.retryable
  return storageError(found?.code ?? 'storage.failed', `${what}: ${messageOf(error)}`, { cause: error, ...(retryable === undefined ? {} : { retryable }) })
}
