import { randomUUID } from 'node:crypto'
import { messageOf, throwIfAborted } from '../errors.js'
import type { Chunk } from './chunks.js'
import { hasCode } from './failure.js'
import { partialFolder } from './prefix.js'
import { digestHeader, landed, mark, multipart, type Multipart, type PartPlan, type UploadTarget } from './s3-multipart.js'
import type { ByteSource } from './storage.js'
import { cleanUpTime, sendWholeOrParts } from './whole-or-parts.js'

export type { UploadTarget } from './s3-multipart.js'

const MiB = 1024 * 1024

/** 8,000 parts of 8 to 32 MiB (199 GiB), then 2,000 segments of 3 GiB: 6 TiB, with chunks of never more than 32 MiB. Tests use a smaller one. */
export const partPlan: PartPlan = {
  direct: 8_000,
  perSegment: 96,
  size: (index) => (index < 1_000 ? 8 : index < 3_000 ? 16 : 32) * MiB,
}

const putWhole = async (target: UploadTarget, key: string, data: Buffer, signal: AbortSignal): Promise<void> => {
  const { client, sdk, bucket: Bucket, ask } = target
  const id = randomUUID()
  try {
    await ask(`write of ${key}`, signal, () =>
      client.send(new sdk.PutObjectCommand({ Bucket, Key: key, Body: data, ContentLength: data.length, Metadata: { [mark]: id }, ...target.lasting(), ...digestHeader(target, data) }), { abortSignal: signal }))
  } catch (error) {
    throwIfAborted(signal)
    if (!hasCode(error, 'storage.connection_lost', 'storage.timeout', 'storage.unavailable') || !(await landed(target, key, id, data.length, signal))) throw error
  }
}

// Some compatible services accept a retention for an upload in parts and forget it, and an unlocked backup must not pass for a locked one.
const confirmLock = async (target: UploadTarget, key: string, signal: AbortSignal): Promise<void> => {
  const { client, sdk, bucket: Bucket, log, ask } = target
  const { ObjectLockMode, ObjectLockRetainUntilDate } = target.lasting()
  if (ObjectLockMode === undefined) return
  const what = `lock of ${key}`
  try {
    const head = await ask(what, signal, () => client.send(new sdk.HeadObjectCommand({ Bucket, Key: key }), { abortSignal: signal }))
    if (head.ObjectLockRetainUntilDate !== undefined) return
    const Retention = { Mode: ObjectLockMode, RetainUntilDate: ObjectLockRetainUntilDate }
    await ask(what, signal, () => client.send(new sdk.PutObjectRetentionCommand({ Bucket, Key: key, VersionId: head.VersionId, Retention }), { abortSignal: signal }))
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

  try {
    const sent = await sendWholeOrParts({
      source, size: (index) => plan.size(index), parallel: target.parallel, signal,
      whole: (data, stop) => putWhole(target, key, data, stop),
      part: (chunk, stop) => (chunk.index < plan.direct ? whole.part(chunk.index + 1, chunk.data, stop) : sendToSegment(chunk, stop)),
      complete: (size) => whole.complete(size, signal),
    })
    await confirmLock(target, key, signal)
    return sent
  } catch (error) {
    const used = segments.filter((segment) => segment !== undefined)
    await Promise.all([whole.abort(), ...used.map(async (segment) => {
      await segment.upload.abort()
      await removeSegment(segment.key, AbortSignal.timeout(cleanUpTime))
    })])
    throw error
  }
}
