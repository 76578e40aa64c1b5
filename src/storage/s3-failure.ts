import { BackupdError, messageOf } from '../errors.js'
import { httpFailure, retryAfter, storageError, systemFailure, type StorageCode } from './failure.js'

// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and names that compatible services add.
const names: Record<string, StorageCode> = {
  InvalidAccessKeyId: 'storage.auth', SignatureDoesNotMatch: 'storage.auth', InvalidToken: 'storage.auth', ExpiredToken: 'storage.auth',
  ExpiredTokenException: 'storage.auth', TokenRefreshRequired: 'storage.auth', CredentialsProviderError: 'storage.auth', InvalidSecurity: 'storage.auth',
  UnrecognizedClientException: 'storage.auth', MissingSecurityHeader: 'storage.auth', AuthorizationHeaderMalformed: 'storage.auth',
  AccessDenied: 'storage.denied', AllAccessDisabled: 'storage.denied', AccountProblem: 'storage.denied', Forbidden: 'storage.denied',
  NoSuchBucket: 'storage.no_bucket', InvalidBucketName: 'storage.no_bucket',
  NoSuchKey: 'storage.not_found', NotFound: 'storage.not_found', NoSuchVersion: 'storage.not_found', NoSuchUpload: 'storage.not_found',
  PermanentRedirect: 'storage.wrong_region', TemporaryRedirect: 'storage.wrong_region', Redirect: 'storage.wrong_region',
  IllegalLocationConstraintException: 'storage.wrong_region',
  RequestTimeTooSkewed: 'storage.clock_skew', RequestExpired: 'storage.clock_skew', AuthFailure: 'storage.auth',
  SlowDown: 'storage.throttled', ThrottlingException: 'storage.throttled', TooManyRequests: 'storage.throttled', TooManyRequestsException: 'storage.throttled',
  ServiceUnavailable: 'storage.throttled', RequestLimitExceeded: 'storage.throttled', BandwidthLimitExceeded: 'storage.throttled',
  InternalError: 'storage.unavailable', InternalFailure: 'storage.unavailable', OperationAborted: 'storage.unavailable',
  RequestTimeout: 'storage.timeout', TimeoutError: 'storage.timeout',
  BadDigest: 'storage.checksum', InvalidDigest: 'storage.checksum', XAmzContentSHA256Mismatch: 'storage.checksum', XAmzContentChecksumMismatch: 'storage.checksum',
  IncompleteBody: 'storage.connection_lost', InvalidPart: 'storage.incomplete',
  PreconditionFailed: 'storage.changed', ConditionalRequestConflict: 'storage.changed',
  EntityTooLarge: 'storage.too_large', QuotaExceeded: 'storage.disk_full', XMinioStorageFull: 'storage.disk_full', InsufficientStorage: 'storage.disk_full',
  NotImplemented: 'storage.unsupported', MissingContentLength: 'storage.unsupported', MethodNotAllowed: 'storage.unsupported',
  InvalidObjectState: 'storage.archived',
}

interface S3Error {
  name?: string
  Code?: string
  message?: string
  $metadata?: { httpStatusCode?: number }
  $response?: { statusCode?: number; headers?: Record<string, string> }
}

const checksumHint = 'The service may not know the checksums that are sent by default: set checksum_mode to WHEN_REQUIRED for this storage.'

const credentialsHint = 'No credentials were found: give access_key_id and secret_access_key, or AWS_PROFILE, AWS_ACCESS_KEY_ID or a role to the process that runs backupd.'

const classOf = (error: S3Error, name: string, status: number | undefined): StorageCode | undefined => {
  const message = error.message ?? ''
  // The same name for a malformed header and for a signature of another region, told apart by the sentence only.
  if (/region/i.test(message) && /wrong|expecting|specified endpoint/i.test(message)) return 'storage.wrong_region'
  if (/object lock|retention|WORM|legal hold/i.test(message) && (status === 403 || status === 400)) return 'storage.locked'
  const named = names[name]
  if (named !== undefined) return named
  if (status === 301 || status === 307) return 'storage.wrong_region'
  // An error that arrives inside a 200 answer: the service began to answer before it knew.
  if (status === 200) return 'storage.unavailable'
  return status === undefined ? undefined : httpFailure(status)
}

/** What the S3 client threw, as one of our errors. `what` says what was tried. */
export const s3Failure = (error: unknown, what: string): BackupdError => {
  if (error instanceof BackupdError) return error
  const thrown = (typeof error === 'object' && error !== null ? error : {}) as S3Error
  const status = thrown.$metadata?.httpStatusCode ?? thrown.$response?.statusCode
  const name = thrown.Code ?? thrown.name ?? ''
  const system = systemFailure(error)
  // An answer says more than the state of its connection.
  const code = (status === undefined ? (system?.code ?? classOf(thrown, name, status)) : classOf(thrown, name, status)) ?? system?.code ?? 'storage.failed'
  const wait = retryAfter(thrown.$response?.headers?.['retry-after'])
  const message = messageOf(error).replace(/\s+Deserialization error: to see the raw response.*$/s, '')
  const said = name === '' || name === 'Error' || message.includes(name) ? message : `${name}: ${message}`
  const retryable = status === undefined && system?.retryable !== undefined ? { retryable: system.retryable } : {}
  return storageError(code, `${what}: ${said}${status === undefined ? '' : ` (status ${status})`}`, {
    cause: error,
    ...retryable,
    ...(code === 'storage.unsupported' || (code === 'storage.rejected' && /checksum|trailer|header|content-length/i.test(message)) ? { hint: checksumHint } : {}),
    ...(name === 'CredentialsProviderError' ? { hint: credentialsHint } : {}),
    ...(wait === undefined ? {} : { retryAfter: wait }),
  })
}
