import { createHash, randomUUID } from 'node:crypto'
import type { CompletedPart, CreateMultipartUploadCommandInput } from '@aws-sdk/client-s3'
import { throwIfAborted } from '../errors.js'
import { asker, ifThere } from './asking.js'
import { storageError } from './failure.js'
import type { S3Service } from './s3-client.js'
import { s3Failure } from './s3-failure.js'
import { within } from './wait.js'
import { cleaningUp, cleanUpTime } from './whole-or-parts.js'

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

/** Where and how an upload goes. */
export interface UploadTarget extends Omit<S3Service, 'nameOf'> {
  parallel: number
  /** Storage class, encryption, retention: of every object that is to stay. */
  lasting(): Partial<CreateMultipartUploadCommandInput>
  /** Encryption only: of segments, which are removed again. */
  passing(): Partial<CreateMultipartUploadCommandInput>
  /** Send Content-MD5: what retention asks for where no other checksum is sent. */
  md5: boolean
  plan: PartPlan
}

/** Our own mark on an object tells after a lost answer whether it is the one of this upload. */
export const mark = 'backupd-upload'

/** The checksum of a request, where it has no other. */
export const digestHeader = (target: UploadTarget, data: Buffer): { ContentMD5?: string } =>
  target.md5 ? { ContentMD5: createHash('md5').update(data).digest('base64') } : {}

/** Whether the object of `key` is the one that was marked with `id`, and whole. */
export const landed = async ({ client, sdk, bucket }: UploadTarget, key: string, id: string, size: number, signal: AbortSignal): Promise<boolean> => {
  try {
    const head = await client.send(new sdk.HeadObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal })
    return head.Metadata?.[mark] === id && head.ContentLength === size
  } catch {
    return false
  }
}

/** One object in parts. */
export interface Multipart {
  part(number: number, data: Buffer, signal: AbortSignal): Promise<void>
  copy(number: number, from: string, signal: AbortSignal): Promise<void>
  complete(size: number, signal: AbortSignal): Promise<void>
  abort(): Promise<void>
}

/** A multipart upload; it is begun with its first part. */
export const multipart = (target: UploadTarget, key: string, attributes: Partial<CreateMultipartUploadCommandInput>): Multipart => {
  const { client, sdk, bucket: Bucket, log, ask } = target
  const id = randomUUID()
  const parts: CompletedPart[] = []
  let begun: Promise<string> | undefined

  const begin = (signal: AbortSignal): Promise<string> =>
    (begun ??= ask(`begin of the upload of ${key}`, signal, async () => {
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
      const sent = await ask(what, signal, () =>
        client.send(new sdk.UploadPartCommand({ Bucket, Key: key, UploadId, PartNumber: number, Body: data, ContentLength: data.length, ...digestHeader(target, data) }), { abortSignal: signal }))
      done(number, sent)
    },
    copy: async (number, from, signal) => {
      const UploadId = await begin(signal)
      const CopySource = `${Bucket}/${from}`.split('/').map(encodeURIComponent).join('/')
      const copied = await ask(`part ${number} of ${key}`, signal, () =>
        client.send(new sdk.UploadPartCopyCommand({ Bucket, Key: key, UploadId, PartNumber: number, CopySource }), { abortSignal: signal }))
      done(number, copied.CopyPartResult)
    },
    complete: async (size, signal) => {
      const UploadId = await begin(signal)
      const what = `end of the upload of ${key}`
      try {
        await ask(what, signal, () =>
          client.send(new sdk.CompleteMultipartUploadCommand({ Bucket, Key: key, UploadId, MultipartUpload: { Parts: parts } }), { abortSignal: signal }))
      } catch (error) {
        // The answer to an earlier attempt may have been lost after the service had done it; then there is no such upload any more.
        throwIfAborted(signal)
        if (!(await landed(target, key, id, size, signal))) throw error
        log.info({ key }, 'the upload was complete, though its answer was lost')
      }
    },
    abort: async () => {
      const pending = begun
      if (pending === undefined) return
      await cleaningUp('abort an upload', { log, about: { key }, action: async (signal) => {
        const UploadId = await within(pending, { signal })
        const what = `abort of the upload of ${key}`
        const briefly = asker(s3Failure, { log, retryFor: Math.min(target.retryFor, cleanUpTime / 2) })
        await ifThere(briefly(what, signal, () => client.send(new sdk.AbortMultipartUploadCommand({ Bucket, Key: key, UploadId }), { abortSignal: signal })))
      } })
    },
  }
}
