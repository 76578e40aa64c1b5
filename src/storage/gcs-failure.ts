import { BackupdError, messageOf } from '../errors.js'
import { httpFailure, retryAfter, storageError, unknownFailure, type StorageCode } from './failure.js'
import { textOf, type HttpAnswer } from './http.js'

// https://cloud.google.com/storage/docs/json_api/v1/status-codes and .../xml-api/reference-status
const reasons: Record<string, StorageCode> = {
  authError: 'storage.auth', required: 'storage.auth', AuthenticationRequired: 'storage.auth', ExpiredToken: 'storage.auth', InvalidSecurity: 'storage.auth',
  forbidden: 'storage.denied', insufficientPermissions: 'storage.denied', AccessDenied: 'storage.denied', accountDisabled: 'storage.denied', UserProjectAccountProblem: 'storage.denied',
  retentionPolicyNotMet: 'storage.locked', objectUnderActiveHold: 'storage.locked',
  NoSuchBucket: 'storage.no_bucket', NoSuchKey: 'storage.not_found', NoSuchUpload: 'storage.not_found',
  rateLimitExceeded: 'storage.throttled', userRateLimitExceeded: 'storage.throttled', quotaExceeded: 'storage.throttled', SlowDown: 'storage.throttled',
  conditionNotMet: 'storage.changed', PreconditionFailed: 'storage.changed', uploadTooLarge: 'storage.too_large', EntityTooLarge: 'storage.too_large',
  backendError: 'storage.unavailable', internalError: 'storage.unavailable', InternalError: 'storage.unavailable', ServiceUnavailable: 'storage.unavailable',
  BadDigest: 'storage.checksum', RequestTimeTooSkewed: 'storage.clock_skew', RequestTimeout: 'storage.timeout',
}

interface Said {
  reason: string
  message: string
}

const read = (text: string): Said => {
  const xml = (name: string): string | undefined => new RegExp(`<${name}>([^<]*)</${name}>`).exec(text)?.[1]
  if (text.trimStart().startsWith('<')) return { reason: xml('Code') ?? '', message: [xml('Message'), xml('Details')].filter((part) => part !== undefined).join(' ') }
  try {
    const { error } = JSON.parse(text) as { error?: { message?: string; errors?: { reason?: string }[] } | string }
    if (typeof error === 'object') return { reason: error.errors?.[0]?.reason ?? '', message: error.message ?? '' }
  } catch {
    // Some answers are a sentence.
  }
  return { reason: '', message: text.slice(0, 300).trim() }
}

/** The refusal in `answer`, as one of our errors. Reads its body. */
export const gcsRefusal = async (answer: HttpAnswer, what: string): Promise<BackupdError> => {
  const { reason, message } = read(await textOf(answer))
  let code = reasons[reason] ?? httpFailure(answer.status) ?? 'storage.failed'
  // The JSON API has the one reason `notFound` for an object and for its bucket.
  if (answer.status === 404 && /bucket/i.test(message)) code = 'storage.no_bucket'
  if (answer.status === 400 && /hash|checksum|md5|crc32c/i.test(`${reason} ${message}`)) code = 'storage.checksum'
  if (answer.status === 403 && /retention|hold/i.test(message)) code = 'storage.locked'
  const wait = retryAfter(answer.headers['retry-after'])
  return storageError(code, `${what}: ${[reason, message].filter((part) => part !== '').join(': ')} (status ${answer.status})`, wait === undefined ? {} : { retryAfter: wait })
}

/** What getting an access token failed with. */
export const gcsAuthFailure = (error: unknown): BackupdError => {
  const known = unknownFailure(error, 'signing in to Google Cloud')
  if (known.code !== 'storage.failed') return known
  const message = messageOf(error)
  const skewed = /reasonable timeframe|iat and exp/i.test(message)
  const status = (error as { response?: { status?: number } }).response?.status
  const code = skewed ? 'storage.clock_skew' : status !== undefined && status >= 500 ? 'storage.unavailable' : 'storage.auth'
  return storageError(code, `signing in to Google Cloud: ${message}`, { cause: error })
}

/** Anything else that was thrown. */
export const gcsFailure = (error: unknown, what: string): BackupdError => (error instanceof BackupdError ? error : unknownFailure(error, what))
