import type { Readable } from 'node:stream'
import type { ObjectLockRetentionMode, ServerSideEncryption, StorageClass } from '@aws-sdk/client-s3'
import { readAhead } from './ahead.js'
import { ifThere } from './asking.js'
import { hasCode, storageError } from './failure.js'
import { isPartial } from './prefix.js'
import { openRanges } from './ranges.js'
import { configSchema, openService, type S3Config, type S3Service } from './s3-client.js'
import { s3Failure } from './s3-failure.js'
import { pagesOfBucket } from './s3-list.js'
import { sweepS3 } from './s3-sweep.js'
import { partPlan, uploadToS3, type UploadTarget } from './s3-upload.js'
import type { StorageAdapter, StorageBackend, StorageContext, StoredObject } from './storage.js'

const TiB = 2 ** 40
const day = 86_400_000

const encryptionOf = (config: S3Config): { ServerSideEncryption?: ServerSideEncryption; SSEKMSKeyId?: string } => ({
  ...(config.server_side_encryption === undefined ? {} : { ServerSideEncryption: config.server_side_encryption }),
  ...(config.kms_key_id === undefined ? {} : { SSEKMSKeyId: config.kms_key_id }),
})

const targetOf = (service: S3Service, config: S3Config, { parallelUploads }: StorageContext): UploadTarget => ({
  ...service,
  parallel: parallelUploads,
  plan: partPlan,
  md5: config.object_lock_days !== undefined && config.checksum_mode === 'WHEN_REQUIRED',
  passing: () => encryptionOf(config),
  lasting: () => ({
    ...encryptionOf(config),
    ...(config.storage_class === undefined ? {} : { StorageClass: config.storage_class as StorageClass }),
    ...(config.object_lock_days === undefined ? {} : {
      ObjectLockMode: (config.object_lock_mode ?? 'GOVERNANCE') as ObjectLockRetentionMode,
      ObjectLockRetainUntilDate: new Date(Date.now() + config.object_lock_days * day),
    }),
  }),
})

const openS3 = async (config: S3Config, context: StorageContext): Promise<StorageAdapter> => {
  const service = await openService(config, context)
  const { client, sdk, bucket: Bucket, prefix, ask, nameOf, log, retryFor } = service
  const target = targetOf(service, config, context)
  let toldOfVersions = false

  const head = async (key: string, signal: AbortSignal): Promise<StoredObject | undefined> => {
    const what = `look at ${nameOf(key)}`
    const look = async (): Promise<StoredObject> => {
      const found = await ask(what, signal, () => client.send(new sdk.HeadObjectCommand({ Bucket, Key: prefix + key }), { abortSignal: signal }))
      return { key, size: found.ContentLength ?? 0, modifiedAt: found.LastModified }
    }
    // The answer to HEAD has no body; only that of GET says which of all refusals it was.
    const askWhy = async (): Promise<never> => {
      await ask(what, signal, async () => {
        const { Body } = await client.send(new sdk.GetObjectCommand({ Bucket, Key: prefix + key, Range: 'bytes=0-0' }), { abortSignal: signal })
        ;(Body as Readable | undefined)?.destroy()
      })
      throw storageError('storage.denied', `${what}: reading is allowed, looking is not`)
    }
    return ifThere(look().catch((error: unknown) => {
      if (hasCode(error, 'storage.denied', 'storage.rejected', 'storage.wrong_region')) return askWhy()
      throw error
    }))
  }

  return {
    type: 'aws_s3',
    capabilities: { parallelUpload: true, exactTimes: true, maxObjectSize: 5 * TiB },
    location: nameOf,
    write: (key, source, { signal }) => uploadToS3(target, prefix + key, source, signal),
    read: (key, { offset, length, signal }) =>
      readAhead<string>({
        key: nameOf(key), offset, length, retryFor, signal, log, classify: s3Failure,
        open: openRanges({
          name: nameOf(key),
          sizeOf: async (stop) => (await head(key, stop))?.size,
          get: async ({ header, tag }, stop) => {
            try {
              const got = await client.send(new sdk.GetObjectCommand({ Bucket, Key: prefix + key, Range: header, IfMatch: tag }), { abortSignal: stop })
              return { body: got.Body as Readable, contentRange: got.ContentRange, contentLength: got.ContentLength, tag: got.ETag }
            } catch (error) {
              if ((error as { name?: string }).name === 'InvalidRange') return undefined
              throw error
            }
          },
        }),
      }, context.parallelUploads),
    stat: (key, { signal }) => head(key, signal),
    list: async function* (start, { signal }) {
      for await (const object of pagesOfBucket(service, start, signal)) if (!isPartial(object.key) && !object.key.endsWith('/')) yield object
    },
    remove: async (key, { signal }) => {
      const answer = await ifThere(ask(`removal of ${nameOf(key)}`, signal, () => client.send(new sdk.DeleteObjectCommand({ Bucket, Key: prefix + key }), { abortSignal: signal })))
      if (answer?.DeleteMarker !== true || toldOfVersions) return
      toldOfVersions = true
      log.info({ bucket: Bucket }, 'the bucket keeps versions: what is removed stays stored until a lifecycle rule for noncurrent versions removes it')
    },
    sweep: sweepS3(service),
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
