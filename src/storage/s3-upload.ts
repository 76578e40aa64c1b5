import { createHash, randomUUID } from 'node:crypto'
import type * as Sdk from '@aws-sdk/client-s3'
import type { CompletedPart, CreateMultipartUploadCommandInput, S3Client } from '@aws-sdk/client-s3'
import { messageOf, throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import { sendChunks, type Chunk } from './chunks.js'
import { hasCode, storageError } from './failure.js'
import { partialFolder } from './prefix.js'
import { retry } from './retry.js'
import { s3Failure } from './s3-failure.js'
import type { ByteSource } from './storage.js'
import { within } from './wait.js'

const MiB = 1024 * 1024

/**
 * How an object of unknown length is cut. The service allows 10,000 parts of 5 MiB to 5 GiB
 * (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html), so 5 TiB needs parts of more than 512 MiB, too much to hold in memory.
 * So the first `direct` chunks are parts, and after them each part is a segment: `perSegment` chunks that are put together as an object
 * of their own, copied by the service into the part, and removed.
 */
export interface PartPlan {
  direct: number
  perSegment: number
  size(index: number): number
}

/** 8,000 parts of 8 to 32 MiB (199 GiB), then 2,000 segments of 3 GiB: 6 TiB, with chunks of never more than 32 MiB. Tests use a smaller one. */
export const partPlan: PartPlan = {
  direct: 8_000,
  perSegment: 96,
  size: (index) => (index < 1_000 ? 8 : index < 3_000 ? 16 : 32) * MiB,
}

// Chunks in flight together; one more is being filled.
const memoryInFlight = 96 * MiB

/** How long cleaning up after a failure may take, milliseconds. */
const cleanUpTime = 30_000

/** Where and how an upload goes. */
export interface UploadTarget {
  client: S3Client
  sdk: typeof Sdk
  bucket: string
  /** With a slash behind, or empty. */
  prefix: string
  parallel: number
  retryFor: number
  log: Log
  /** Storage class, encryption, retention: of every object that is to stay. */
  lasting(): Partial<CreateMultipartUploadCommandInput>
  /** Encryption only: of segments, which are removed again. */
  passing(): Partial<CreateMultipartUploadCommandInput>
  /** Send Content-MD5: what retention asks for where no other checksum is sent. */
  md5: boolean
  plan: PartPlan
}

// Our own mark on an object tells after a lost answer whether it is the one of this upload.
const mark = 'backupd-upload'

const digestHeader = (target: UploadTarget, data: Buffer): { ContentMD5?: string } =>
  target.md5 ? { ContentMD5: createHash('md5').update(data).digest('base64') } : {}

/** Whether the object of `key` is the one that was marked with `id`, and whole. */
const landed = async ({ client, sdk, bucket }: UploadTarget, key: string, id: string, size: number, signal: AbortSignal): Promise<boolean> => {
  try {
    const head = await client.send(new sdk.HeadObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal })
    return head.Metadata?.[mark] === id && head.ContentLength === size
  } catch {
    return false
  }
}

const attempt = async <T>(target: UploadTarget, what: string, signal: AbortSignal, action: () => Promise<T>): Promise<T> =>
  retry(async () => {
    try {
      return await action()
    } catch (error) {
      throwIfAborted(signal)
      throw s3Failure(error, what)
    }
  }, { retryFor: target.retryFor, signal, log: target.log, what })

interface Multipart {
  part(number: number, data: Buffer, signal: AbortSignal): Promise<void>
  copy(number: number, from: string, signal: AbortSignal): Promise<void>
  complete(size: number, signal: AbortSignal): Promise<void>
  abort(): Promise<void>
}

// One multipart upload; it is begun with its first part.
const multipart = (target: UploadTarget, key: string, attributes: Partial<CreateMultipartUploadCommandInput>): Multipart => {
  const { client, sdk, bucket: Bucket, log } = target
  const id = randomUUID()
  const parts: CompletedPart[] = []
  let begun: Promise<string> | undefined

  const begin = (signal: AbortSignal): Promise<string> =>
    (begun ??= attempt(target, `begin of the upload of ${key}`, signal, async () => {
      const { UploadId } = await client.send(new sdk.CreateMultipartUploadCommand({ Bucket, Key: key, Metadata: { [mark]: id }, ...attributes }), { abortSignal: signal })
      if (UploadId === undefined) throw storageError('storage.failed', `begin of the upload of ${key}: the service gave no upload id`)
      return UploadId
    }))

  const done = (number: number, part: Omit<CompletedPart, 'PartNumber'> | undefined): void => {
    if (part?.ETag === undefined) throw storageError('storage.failed', `part ${number} of ${key}: the service gave no ETag`)
    const sums = Object.entries(part).filter(([name, value]) => value !== undefined && (name === 'ETag' || name.startsWith('Checksum')) && name !== 'ChecksumType')
    parts[number - 1] = { PartNumber: number, ...Object.fromEntries(sums) }
  }

  return {
    part: async (number, data, signal) => {
      const UploadId = await begin(signal)
      const what = `part ${number} of ${key}`
      const sent = await attempt(target, what, signal, () =>
        client.send(new sdk.UploadPartCommand({ Bucket, Key: key, UploadId, PartNumber: number, Body: data, ContentLength: data.length, ...digestHeader(target, data) }), { abortSignal: signal }))
      done(number, sent)
    },
    copy: async (number, from, signal) => {
      const UploadId = await begin(signal)
      const CopySource = `${Bucket}/${from}`.split('/').map(encodeURIComponent).join('/')
      const copied = await attempt(target, `part ${number} of ${key}`, signal, () =>
        client.send(new sdk.UploadPartCopyCommand({ Bucket, Key: key, UploadId, PartNumber: number, CopySource }), { abortSignal: signal }))
      done(number, copied.CopyPartResult)
    },
    complete: async (size, signal) => {
      const UploadId = await begin(signal)
      const what = `end of the upload of ${key}`
      try {
        await attempt(target, what, signal, () =>
          client.send(new sdk.CompleteMultipartUploadCommand({ Bucket, Key: key, UploadId, MultipartUpload: { Parts: parts } }), { abortSignal: signal }))
      } catch (error) {
        // The answer to an earlier attempt may have been lost after the service had done it; then there is no such upload any more.
        throwIfAborted(signal)
        if (!(await landed(target, key, id, size, signal))) throw error
        log.info({ key }, 'the upload was complete, though its answer was lost')
      }
    },
    abort: async () => {
      const signal = AbortSignal.timeout(cleanUpTime)
      try {
        if (begun === undefined) return
        const UploadId = await within(begun, { signal })
        await retry(async () => {
          try {
            await client.send(new sdk.AbortMultipartUploadCommand({ Bucket, Key: key, UploadId }), { abortSignal: signal })
          } catch (error) {
            const failure = s3Failure(error, `abort of the upload of ${key}`)
            if (!hasCode(failure, 'storage.not_found')) throw failure
          }
        }, { retryFor: Math.min(target.retryFor, cleanUpTime / 2), signal, log, what: `abort of the upload of ${key}` })
      } catch (error) {
        log.warn({ key, error: messageOf(error) }, 'could not abort an upload; sweeping will')
      }
    },
  }
}

const putWhole = async (target: UploadTarget, key: string, data: Buffer, signal: AbortSignal): Promise<void> => {
  const { client, sdk, bucket: Bucket } = target
  const id = randomUUID()
  try {
    await attempt(target, `write of ${key}`, signal, () =>
      client.send(new sdk.PutObjectCommand({ Bucket, Key: key, Body: data, ContentLength: data.length, Metadata: { [mark]: id }, ...target.lasting(), ...digestHeader(target, data) }), { abortSignal: signal }))
  } catch (error) {
    throwIfAborted(signal)
    if (!hasCode(error, 'storage.connection_lost', 'storage.timeout', 'storage.unavailable') || !(await landed(target, key, id, data.length, signal))) throw error
  }
}

// Some compatible services accept a retention for an upload in parts and forget it, and an unlocked backup must not pass for a locked one.
const confirmLock = async (target: UploadTarget, key: string, signal: AbortSignal): Promise<void> => {
  const { client, sdk, bucket: Bucket, log } = target
  const { ObjectLockMode, ObjectLockRetainUntilDate } = target.lasting()
  if (ObjectLockMode === undefined) return
  const what = `lock of ${key}`
  try {
    const head = await attempt(target, what, signal, () => client.send(new sdk.HeadObjectCommand({ Bucket, Key: key }), { abortSignal: signal }))
    if (head.ObjectLockRetainUntilDate !== undefined) return
    const Retention = { Mode: ObjectLockMode, RetainUntilDate: ObjectLockRetainUntilDate }
    await attempt(target, what, signal, () => client.send(new sdk.PutObjectRetentionCommand({ Bucket, Key: key, VersionId: head.VersionId, Retention }), { abortSignal: signal }))
  } catch (error) {
    // Whoever may only write cannot look either; a service that knows the header has refused it or obeyed.
    if (!hasCode(error, 'storage.denied')) throw error
    log.warn({ key }, 'could not confirm that the object is locked: the right to read the object and its retention is missing')
  }
}

/** Uploads `source` as `key` (with the prefix): small ones in one request, others in parts, several in flight. All or nothing. */
export const uploadToS3 = async (target: UploadTarget, key: string, source: ByteSource, signal: AbortSignal): Promise<{ size: number }> => {
  const { client, sdk, bucket: Bucket, plan } = target
  const whole = multipart(target, key, target.lasting())
  const folder = `${target.prefix}${partialFolder}/${randomUUID()}`
  const segments: { key: string; upload: Multipart; missing: number; size: number }[] = []

  const removeSegment = async (segment: string, within: AbortSignal): Promise<void> => {
    try {
      await client.send(new sdk.DeleteObjectCommand({ Bucket, Key: segment }), { abortSignal: within })
    } catch (error) {
      target.log.warn({ key: segment, error: messageOf(error) }, 'could not remove a segment; sweeping will')
    }
  }

  const sendToSegment = async (chunk: Chunk, stop: AbortSignal): Promise<void> => {
    const index = Math.floor((chunk.index - plan.direct) / plan.perSegment)
    const place = (chunk.index - plan.direct) % plan.perSegment
    const number = plan.direct + index + 1
    if (place === 0 && chunk.last) return whole.part(number, chunk.data, stop)
    const name = `${folder}/${index}`
    const segment = (segments[index] ??= { key: name, upload: multipart(target, name, target.passing()), missing: plan.perSegment, size: 0 })
    segment.size += chunk.data.length
    if (chunk.last) segment.missing -= plan.perSegment - place - 1
    await segment.upload.part(place + 1, chunk.data, stop)
    segment.missing -= 1
    if (segment.missing > 0) return
    await segment.upload.complete(segment.size, stop)
    await whole.copy(number, name, stop)
    await removeSegment(name, stop)
  }

  let single = false
  try {
    const { size } = await sendChunks({
      source, size: (index) => plan.size(index), parallel: target.parallel, memory: memoryInFlight, signal,
      send: async (chunk, stop) => {
        single = chunk.index === 0 && chunk.last
        if (single) await putWhole(target, key, chunk.data, stop)
        else if (chunk.index < plan.direct) await whole.part(chunk.index + 1, chunk.data, stop)
        else await sendToSegment(chunk, stop)
      },
    })
    if (!single) await whole.complete(size, signal)
    await confirmLock(target, key, signal)
    return { size }
  } catch (error) {
    const used = segments.filter((segment) => segment !== undefined)
    await Promise.all([whole.abort(), ...used.map(async (segment) => {
      await segment.upload.abort()
      await removeSegment(segment.key, AbortSignal.timeout(cleanUpTime))
    })])
    throw error
  }
}
