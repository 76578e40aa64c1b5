import type { Readable } from 'node:stream'
import type * as Sdk from '@aws-sdk/client-s3'
import type { ObjectLockRetentionMode, S3ClientConfig, ServerSideEncryption, StorageClass } from '@aws-sdk/client-s3'
import { z } from 'zod'
import { messageOf, throwIfAborted } from '../errors.js'
import { createAgents } from './agents.js'
import { readAhead } from './ahead.js'
import { hasCode, storageError } from './failure.js'
import { endpointUrl, flag, oneOf, text, wholeNumber } from './fields.js'
import { isPartial, normalisePrefix, partialFolder } from './prefix.js'
import { silence } from './resume.js'
import { retry } from './retry.js'
import { s3Failure } from './s3-failure.js'
import { partPlan, uploadToS3, type UploadTarget } from './s3-upload.js'
import type { Resolved, StorageAdapter, StorageBackend, StorageContext, StoredObject, SweepReport } from './storage.js'

const configSchema = z.object({
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
type S3Config = Resolved<z.output<typeof configSchema>, 'secret_access_key' | 'session_token'>

const TiB = 2 ** 40
const day = 86_400_000

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

const openS3 = async (config: S3Config, context: StorageContext): Promise<StorageAdapter> => {
  const sdk = await loadSdk()
  const client = new sdk.S3Client(clientConfig(config, createAgents({ maxSockets: Math.max(50, context.parallelUploads * 4) })))
  const { log, retryFor } = context
  const Bucket = config.bucket_name
  const prefix = normalisePrefix(config.prefix)
  const nameOf = (key: string): string => `s3://${Bucket}/${prefix}${key}`
  let toldOfVersions = false

  const encryption = (): { ServerSideEncryption?: ServerSideEncryption; SSEKMSKeyId?: string } => ({
    ...(config.server_side_encryption === undefined ? {} : { ServerSideEncryption: config.server_side_encryption }),
    ...(config.kms_key_id === undefined ? {} : { SSEKMSKeyId: config.kms_key_id }),
  })
  const target: UploadTarget = {
    client, sdk, bucket: Bucket, prefix, parallel: context.parallelUploads, retryFor, log, plan: partPlan,
    md5: config.object_lock_days !== undefined && config.checksum_mode === 'WHEN_REQUIRED',
    passing: encryption,
    lasting: () => ({
      ...encryption(),
      ...(config.storage_class === undefined ? {} : { StorageClass: config.storage_class as StorageClass }),
      ...(config.object_lock_days === undefined ? {} : {
        ObjectLockMode: (config.object_lock_mode ?? 'GOVERNANCE') as ObjectLockRetentionMode,
        ObjectLockRetainUntilDate: new Date(Date.now() + config.object_lock_days * day),
      }),
    }),
  }

  const asking = async <T>(what: string, signal: AbortSignal, action: () => Promise<T>): Promise<T> =>
    retry(async () => {
      try {
        return await action()
      } catch (error) {
        throwIfAborted(signal)
        throw s3Failure(error, what)
      }
    }, { retryFor, signal, log, what })

  const head = async (key: string, signal: AbortSignal): Promise<StoredObject | undefined> => {
    const what = `look at ${nameOf(key)}`
    try {
      const found = await asking(what, signal, () => client.send(new sdk.HeadObjectCommand({ Bucket, Key: prefix + key }), { abortSignal: signal }))
      return { key, size: found.ContentLength ?? 0, modifiedAt: found.LastModified }
    } catch (error) {
      if (hasCode(error, 'storage.not_found')) return undefined
      if (!hasCode(error, 'storage.denied', 'storage.rejected', 'storage.wrong_region')) throw error
    }
    // The answer to HEAD has no body; only that of GET says which of all refusals it was.
    try {
      await asking(what, signal, async () => {
        const { Body } = await client.send(new sdk.GetObjectCommand({ Bucket, Key: prefix + key, Range: 'bytes=0-0' }), { abortSignal: signal })
        ;(Body as Readable | undefined)?.destroy()
      })
    } catch (error) {
      if (hasCode(error, 'storage.not_found')) return undefined
      throw error
    }
    throw storageError('storage.denied', `${what}: reading is allowed, looking is not`)
  }

  const pages = async function* (start: string, signal: AbortSignal): AsyncGenerator<StoredObject, void, undefined> {
    let token: string | undefined
    do {
      const page = await asking(`list of ${nameOf(start)}`, signal, () =>
        client.send(new sdk.ListObjectsV2Command({ Bucket, Prefix: prefix + start, ContinuationToken: token }), { abortSignal: signal }))
      for (const { Key, Size, LastModified } of page.Contents ?? []) {
        if (Key?.startsWith(prefix)) yield { key: Key.slice(prefix.length), size: Size ?? 0, modifiedAt: LastModified }
      }
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined
    } while (token !== undefined)
  }

  const sweepUploads = async (olderThan: Date, signal: AbortSignal, report: SweepReport): Promise<void> => {
    let KeyMarker: string | undefined
    let UploadIdMarker: string | undefined
    do {
      const page = await asking(`list of unfinished uploads in ${nameOf('')}`, signal, () =>
        client.send(new sdk.ListMultipartUploadsCommand({ Bucket, Prefix: prefix, KeyMarker, UploadIdMarker }), { abortSignal: signal }))
      for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
        if (Key === undefined || UploadId === undefined || !Key.startsWith(prefix) || Initiated === undefined || Initiated >= olderThan) continue
        const key = Key.slice(prefix.length)
        try {
          await asking(`abort of the upload of ${nameOf(key)}`, signal, () => client.send(new sdk.AbortMultipartUploadCommand({ Bucket, Key, UploadId }), { abortSignal: signal }))
          report.removed.push(key)
        } catch (error) {
          if (!hasCode(error, 'storage.not_found')) report.remaining.push({ key, reason: messageOf(error) })
        }
      }
      KeyMarker = page.IsTruncated === true ? page.NextKeyMarker : undefined
      UploadIdMarker = page.NextUploadIdMarker
    } while (KeyMarker !== undefined)
  }

  const sweepSegments = async (olderThan: Date, signal: AbortSignal, report: SweepReport): Promise<void> => {
    for await (const { key, modifiedAt } of pages(`${partialFolder}/`, signal)) {
      if (modifiedAt === undefined || modifiedAt >= olderThan) continue
      try {
        await asking(`removal of ${nameOf(key)}`, signal, () => client.send(new sdk.DeleteObjectCommand({ Bucket, Key: prefix + key }), { abortSignal: signal }))
        report.removed.push(key)
      } catch (error) {
        report.remaining.push({ key, reason: messageOf(error) })
      }
    }
  }

  // A versioned bucket keeps what was removed; who pays for it should know. Without the right to ask, nothing is said.
  const noteVersions = async (signal: AbortSignal, report: SweepReport): Promise<void> => {
    try {
      const found = await client.send(new sdk.ListObjectVersionsCommand({ Bucket, Prefix: prefix }), { abortSignal: signal })
      const older = (found.Versions ?? []).filter(({ IsLatest, VersionId }) => IsLatest === false && VersionId !== 'null')
      if (older.length === 0) return
      const bytes = older.reduce((sum, { Size }) => sum + (Size ?? 0), 0)
      const count = found.IsTruncated === true ? `at least ${older.length}` : String(older.length)
      report.remaining.push({ key: '', reason: `the bucket keeps versions: ${count} removed or replaced ones (${bytes} bytes) are still stored; a lifecycle rule for noncurrent versions removes them` })
    } catch (error) {
      throwIfAborted(signal)
      log.debug({ error: messageOf(error) }, 'could not ask for versions')
    }
  }

  return {
    type: 'aws_s3',
    capabilities: { parallelUpload: true, exactTimes: true, maxObjectSize: 5 * TiB },
    location: nameOf,
    write: (key, source, { signal }) => uploadToS3(target, prefix + key, source, signal),
    read: (key, { offset, length, signal }) =>
      readAhead<string>({
        key: nameOf(key), offset, length, retryFor, signal, log, classify: s3Failure,
        open: async (range, tag, stop) => {
          const nothing = async () => {
            const found = await head(key, stop)
            if (found === undefined) throw storageError('storage.not_found', `read of ${nameOf(key)}: there is no such object`)
            return { body: (async function* () {})(), size: found.size, tag: undefined }
          }
          if (range.end !== undefined && range.end <= range.offset) return nothing()
          const Range = range.offset === 0 && range.end === undefined ? undefined : `bytes=${range.offset}-${range.end === undefined ? '' : range.end - 1}`
          try {
            const got = await client.send(new sdk.GetObjectCommand({ Bucket, Key: prefix + key, Range, IfMatch: tag }), { abortSignal: stop })
            const body = got.Body as Readable
            stop.addEventListener('abort', () => body.destroy(), { once: true })
            body.on('error', () => undefined)
            // A server that ignores the range would have its first bytes taken for those in the middle.
            if (Range !== undefined && got.ContentRange?.startsWith(`bytes ${range.offset}-`) !== true) throw storageError('storage.unsupported', `read of ${nameOf(key)}: the service does not know ranges`)
            const total = /\/(\d+)$/.exec(got.ContentRange ?? '')?.[1]
            return { body, size: total === undefined ? (got.ContentLength ?? 0) : Number(total), tag: got.ETag }
          } catch (error) {
            if ((error as { name?: string }).name === 'InvalidRange') return nothing()
            throw error
          }
        },
      }, context.parallelUploads),
    stat: (key, { signal }) => head(key, signal),
    list: async function* (start, { signal }) {
      for await (const object of pages(start, signal)) if (!isPartial(object.key) && !object.key.endsWith('/')) yield object
    },
    remove: async (key, { signal }) => {
      try {
        const answer = await asking(`removal of ${nameOf(key)}`, signal, () => client.send(new sdk.DeleteObjectCommand({ Bucket, Key: prefix + key }), { abortSignal: signal }))
        if (answer.DeleteMarker !== true || toldOfVersions) return
        toldOfVersions = true
        log.info({ bucket: Bucket }, 'the bucket keeps versions: what is removed stays stored until a lifecycle rule for noncurrent versions removes it')
      } catch (error) {
        if (!hasCode(error, 'storage.not_found')) throw error
      }
    },
    sweep: async ({ olderThan, signal }) => {
      const report: SweepReport = { removed: [], remaining: [] }
      await sweepUploads(olderThan, signal, report)
      await sweepSegments(olderThan, signal, report)
      await noteVersions(signal, report)
      return report
    },
    close: async () => client.destroy(),
  }
}

/** Amazon S3 and services that speak its protocol. */
export const s3Backend: StorageBackend = {
  type: 'aws_s3',
  configSchema,
  secretFields: ['secret_access_key', 'session_token'],
  leastRights: 's3:PutObject, s3:GetObject, s3:DeleteObject and s3:AbortMultipartUpload on the objects, and s3:ListBucket, s3:ListBucketMultipartUploads and s3:ListBucketVersions on the bucket',
  open: (config, context) => openS3(config as S3Config, context),
}
