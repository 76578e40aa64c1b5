import { messageOf, throwIfAborted } from '../errors.js'
import { sweepAbandoned, type Abandoned } from './abandoned.js'
import { allPages } from './asking.js'
import { partialFolder } from './prefix.js'
import { pagesOfBucket } from './s3-list.js'
import type { S3Service } from './s3-client.js'
import type { StorageAdapter, SweepReport } from './storage.js'

interface AbandonedUpload extends Abandoned {
  Key: string
  UploadId: string
}

const unfinishedUploads = ({ client, sdk, bucket: Bucket, prefix, ask, nameOf }: S3Service, signal: AbortSignal): AsyncIterable<AbandonedUpload> =>
  allPages(async (mark: { KeyMarker: string | undefined; UploadIdMarker: string | undefined } | undefined) => {
    const page = await ask(`list of unfinished uploads in ${nameOf('')}`, signal, () =>
      client.send(new sdk.ListMultipartUploadsCommand({ Bucket, Prefix: prefix, ...mark }), { abortSignal: signal }))
    const items = (page.Uploads ?? []).flatMap(({ Key, UploadId, Initiated }) =>
      Key === undefined || UploadId === undefined || !Key.startsWith(prefix) || Initiated === undefined ? [] : [{ key: Key.slice(prefix.length), touchedAt: Initiated, Key, UploadId }])
    const more = page.IsTruncated === true && page.NextKeyMarker !== undefined
    return { items, next: more ? { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker } : undefined }
  })

const segments = async function* (service: S3Service, signal: AbortSignal): AsyncGenerator<Abandoned, void, undefined> {
  for await (const { key, modifiedAt } of pagesOfBucket(service, `${partialFolder}/`, signal)) if (modifiedAt !== undefined) yield { key, touchedAt: modifiedAt }
}

// A versioned bucket keeps what was removed; who pays for it should know. Without the right to ask, nothing is said.
const noteVersions = async ({ client, sdk, bucket: Bucket, prefix, log }: S3Service, signal: AbortSignal, report: SweepReport): Promise<void> => {
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

/** Aborts abandoned uploads and removes segments that a killed process left; says what a versioned bucket still keeps. */
export const sweepS3 = (service: S3Service): StorageAdapter['sweep'] => async ({ olderThan, signal }) => {
  const { client, sdk, bucket: Bucket, prefix, ask, nameOf } = service
  const report: SweepReport = { removed: [], remaining: [] }
  await sweepAbandoned(unfinishedUploads(service, signal), {
    olderThan, signal, report,
    remove: ({ key, Key, UploadId }) =>
      ask(`abort of the upload of ${nameOf(key)}`, signal, () => client.send(new sdk.AbortMultipartUploadCommand({ Bucket, Key, UploadId }), { abortSignal: signal })),
  })
  await sweepAbandoned(segments(service, signal), {
    olderThan, signal, report,
    remove: ({ key }) => ask(`removal of ${nameOf(key)}`, signal, () => client.send(new sdk.DeleteObjectCommand({ Bucket, Key: prefix + key }), { abortSignal: signal })),
  })
  await noteVersions(service, signal, report)
  return report
}
