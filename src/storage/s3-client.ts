import type * as Sdk from '@aws-sdk/client-s3'
import type { S3Client, S3ClientConfig } from '@aws-sdk/client-s3'
import { z } from 'zod'
import { messageOf } from '../errors.js'
import type { Log } from '../log.js'
import { createAgents } from './agents.js'
import { asker, type Ask } from './asking.js'
import { storageError } from './failure.js'
import { endpointUrl, flag, oneOf, text, wholeNumber } from './fields.js'
import { normalisePrefix } from './prefix.js'
import { silence } from './resume.js'
import { s3Failure } from './s3-failure.js'
import type { Resolved, StorageContext } from './storage.js'

/** `config_data` of a storage in S3. */
export const configSchema = z.object({
  bucket_name: text,
  /** Default: the SDK's (AWS_REGION, profile), or us-east-1 where an endpoint is given. */
  region: text.optional(),
  /** Without a key the SDK's default chain is used: environment, profile, web identity, container, instance. */
  access_key_id: text.optional(),
  secret_access_key: text.optional(),
  session_token: text.optional(),
  prefix: text.optional(),
  /** Of a compatible service. */
  endpoint: endpointUrl.optional(),
  /** Bucket in the path instead of the host name. Default: true where an endpoint is given. */
  force_path_style: flag.optional(),
  storage_class: text.optional(),
  server_side_encryption: oneOf(['AES256', 'aws:kms', 'aws:kms:dsse']).optional(),
  kms_key_id: text.optional(),
  /** Every object is locked for so many days from its upload. The bucket must have object lock enabled. */
  object_lock_days: wholeNumber(1, 36_500).optional(),
  /** GOVERNANCE (default) can be lifted by whoever has s3:BypassGovernanceRetention, COMPLIANCE by nobody, not even the account's owner. */
  object_lock_mode: oneOf(['GOVERNANCE', 'COMPLIANCE']).optional(),
  /** WHEN_SUPPORTED (default) sends a CRC32 with every part; WHEN_REQUIRED is for compatible services that refuse that. */
  checksum_mode: oneOf(['WHEN_SUPPORTED', 'WHEN_REQUIRED']).optional(),
}).refine((config) => (config.access_key_id === undefined) === (config.secret_access_key === undefined), 'access_key_id and secret_access_key belong together')
export type S3Config = Resolved<z.output<typeof configSchema>, 'secret_access_key' | 'session_token'>

const loadSdk = async (): Promise<typeof Sdk> => {
  // Which Node the SDK will need next year is a matter for our releases, not for the terminal of who runs a backup.
  process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] ??= 'true'
  try {
    return await import('@aws-sdk/client-s3')
  } catch (error) {
    throw storageError('storage.missing_package', `the package @aws-sdk/client-s3 cannot be loaded: ${messageOf(error)}`, { cause: error })
  }
}

const clientConfig = (config: S3Config, { plain, secure }: ReturnType<typeof createAgents>): S3ClientConfig => ({
  // Retries are ours, around each part, so that they are logged, bounded by time and end with an abort.
  maxAttempts: 1,
  forcePathStyle: config.force_path_style ?? config.endpoint !== undefined,
  requestChecksumCalculation: config.checksum_mode ?? 'WHEN_SUPPORTED',
  // Digests of what is read are compared by us, over the whole object.
  responseChecksumValidation: 'WHEN_REQUIRED',
  // It costs a round trip for each part and some services do not know it.
  expectContinueHeader: false,
  // Without a socket time-out a silent server is waited for for ever.
  requestHandler: {
    connectionTimeout: Math.min(20_000, silence.limit),
    socketTimeout: silence.limit,
    httpAgent: plain,
    httpsAgent: secure,
  },
  ...(config.endpoint === undefined ? {} : { endpoint: config.endpoint }),
  ...(config.region === undefined ? (config.endpoint === undefined ? {} : { region: 'us-east-1' }) : { region: config.region }),
  ...(config.access_key_id === undefined || config.secret_access_key === undefined ? {} : {
    credentials: {
      accessKeyId: config.access_key_id,
      secretAccessKey: config.secret_access_key.reveal(),
      ...(config.session_token === undefined ? {} : { sessionToken: config.session_token.reveal() }),
    },
  }),
})

/** The bucket, the client for it, and how it is asked. */
export interface S3Service {
  client: S3Client
  sdk: typeof Sdk
  bucket: string
  /** With a slash behind, or empty. */
  prefix: string
  retryFor: number
  log: Log
  ask: Ask
  nameOf(key: string): string
}

/** Loads the SDK and makes a client; nothing is asked of the service yet. */
export const openService = async (config: S3Config, { log, retryFor, parallelUploads }: StorageContext): Promise<S3Service> => {
  const sdk = await loadSdk()
  const prefix = normalisePrefix(config.prefix)
  return {
    client: new sdk.S3Client(clientConfig(config, createAgents({ maxSockets: Math.max(50, parallelUploads * 4) }))),
    sdk, bucket: config.bucket_name, prefix, retryFor, log,
    ask: asker(s3Failure, { retryFor, log }),
    nameOf: (key) => `s3://${config.bucket_name}/${prefix}${key}`,
  }
}
