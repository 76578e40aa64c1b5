import { allPages } from './asking.js'
import type { S3Service } from './s3-client.js'
import type { StoredObject } from './storage.js'

/** Everything in the bucket whose key starts with `start`, unfinished or not. */
export const pagesOfBucket = ({ client, sdk, bucket: Bucket, prefix, ask, nameOf }: S3Service, start: string, signal: AbortSignal): AsyncIterable<StoredObject> =>
  allPages(async (ContinuationToken: string | undefined) => {
    const page = await ask(`list of ${nameOf(start)}`, signal, () =>
      client.send(new sdk.ListObjectsV2Command({ Bucket, Prefix: prefix + start, ContinuationToken }), { abortSignal: signal }))
    const items = (page.Contents ?? []).flatMap(({ Key, Size, LastModified }) =>
      Key?.startsWith(prefix) === true ? [{ key: Key.slice(prefix.length), size: Size ?? 0, modifiedAt: LastModified }] : [])
    return { items, next: page.IsTruncated === true ? page.NextContinuationToken : undefined }
  })
