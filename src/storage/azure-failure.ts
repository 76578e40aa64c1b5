import { BackupdError, messageOf } from '../errors.js'
import { httpFailure, retryAfter, storageError, systemFailure, unknownFailure, type StorageCode } from './failure.js'

/** What is read of a RestError; its class comes with the SDK, which is loaded lazily. */
interface RestError {
  code?: unknown
  statusCode?: unknown
  details?: { errorCode?: unknown; authenticationErrorDetail?: unknown }
  response?: { headers?: { get(name: string): string | undefined } }
}

// https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes and .../blob-service-error-codes
const codes: Record<string, StorageCode> = {
  ContainerNotFound: 'storage.no_bucket', ContainerBeingDeleted: 'storage.no_bucket', ContainerDisabled: 'storage.no_bucket',
  BlobNotFound: 'storage.not_found', ResourceNotFound: 'storage.not_found',
  AuthenticationFailed: 'storage.auth', NoAuthenticationInformation: 'storage.auth', InvalidAuthenticationInfo: 'storage.auth', AccountIsDisabled: 'storage.auth',
  AuthorizationFailure: 'storage.denied', AuthorizationPermissionMismatch: 'storage.denied', InsufficientAccountPermissions: 'storage.denied',
  AuthorizationProtocolMismatch: 'storage.denied', AuthorizationResourceTypeMismatch: 'storage.denied', AuthorizationServiceMismatch: 'storage.denied',
  AuthorizationSourceIPMismatch: 'storage.denied', PublicAccessNotPermitted: 'storage.denied', KeyBasedAuthenticationNotPermitted: 'storage.denied',
  Md5Mismatch: 'storage.checksum', Crc64Mismatch: 'storage.checksum', ServerBusy: 'storage.throttled', OperationTimedOut: 'storage.timeout', InternalError: 'storage.unavailable',
  ConditionNotMet: 'storage.changed', BlobAlreadyExists: 'storage.changed', InvalidBlockList: 'storage.changed',
  BlobImmutableDueToPolicy: 'storage.locked', BlobImmutableDueToLegalHold: 'storage.locked', LeaseIdMissing: 'storage.locked', SnapshotsPresent: 'storage.locked',
  RequestBodyTooLarge: 'storage.too_large', BlockCountExceedsLimit: 'storage.too_large', BlockListTooLong: 'storage.too_large',
  UnsupportedHeader: 'storage.unsupported', InvalidBlobTier: 'storage.unsupported', AccessTierNotSupportedForBlobType: 'storage.unsupported', BlobArchived: 'storage.unsupported',
  ECONNRESET: 'storage.connection_lost', PARSE_ERROR: 'storage.connection_lost', REQUEST_SEND_ERROR: 'storage.connection_lost',
}

/** What the service says of an error; the answer to HEAD has it in a header only. */
export const azureCode = (error: unknown): string | undefined => {
  const { code, details, response } = error as RestError
  const found = code ?? details?.errorCode ?? response?.headers?.get('x-ms-error-code')
  return typeof found === 'string' ? found : undefined
}

/** What the SDK or the service reported, as one of our errors. */
export const azureFailure = (error: unknown, what: string): BackupdError => {
  if (error instanceof BackupdError) return error
  const { statusCode, details, response } = error as RestError
  const code = azureCode(error)
  const detail = typeof details?.authenticationErrorDetail === 'string' ? details.authenticationErrorDetail : ''
  // The SDK puts the request, with its headers, behind the first line.
  const message = `${what}: ${messageOf(error).split('\n')[0] ?? ''}${code === undefined ? '' : ` (${code})`}`
  const say = (found: StorageCode, hint?: string): BackupdError => {
    const wait = retryAfter(response?.headers?.get('retry-after'))
    return storageError(found, message, { cause: error, ...(wait === undefined ? {} : { retryAfter: wait }), ...(hint === undefined ? {} : { hint }) })
  }
  if (code === 'AuthenticationFailed' && /date header|too old|too far|clock/i.test(detail)) return say('storage.clock_skew')
  if (code === 'AuthenticationFailed' && /signature not valid in the specified time frame|expired/i.test(detail)) return say('storage.auth', 'The SAS token has expired or is not valid yet: make a new one, and check the clock.')
  if (code === 'BlobArchived') return say('storage.unsupported', 'The object is in the archive tier: rehydrate it first, or use access_tier Cool or Cold.')
  // Azurite has the code of a missing right for it.
  if (code === 'AuthorizationFailure' && /failed to authenticate/i.test(message)) return say('storage.auth')
  if (code !== undefined && codes[code] !== undefined) return say(codes[code])
  if (/less data than required|more data than original|aborted|socket hang up|premature/i.test(messageOf(error))) return say('storage.connection_lost')
  const status = typeof statusCode === 'number' ? httpFailure(statusCode) : undefined
  if (systemFailure(error) === undefined && status !== undefined) return say(status)
  return unknownFailure(error, what)
}
