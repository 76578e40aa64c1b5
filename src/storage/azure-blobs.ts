import type { BlobItem } from '@azure/storage-blob'
import { allPages } from './asking.js'
import type { AzureService } from './azure-client.js'

/** Metadata of the empty object that is there for the moment that dropping abandoned blocks takes; never shown, whatever happens then. */
export const sweepMark = 'backupd_sweep'

/** Every blob whose name starts with the prefix and `start`. */
export const blobsOf = (
  { container, prefix, ask, nameOf }: AzureService, start: string, options: { includeMetadata?: boolean; includeUncommitedBlobs?: boolean }, signal: AbortSignal,
): AsyncIterable<BlobItem> =>
  allPages(async (continuationToken: string | undefined) => {
    const page = await ask(`list of ${nameOf(start)}`, signal, async (abortSignal) => {
      const flat = container.listBlobsFlat({ prefix: prefix + start, ...options, abortSignal })
      const next = await flat.byPage({ maxPageSize: 5000, ...(continuationToken === undefined ? {} : { continuationToken }) }).next()
      return next.done === true ? undefined : next.value
    })
    return { items: page?.segment.blobItems ?? [], next: page?.continuationToken === '' ? undefined : page?.continuationToken }
  })

/** Whether it is no object: the marker of a folder, or what a sweep made for a moment. */
export const isMarker = (metadata: Record<string, string> | undefined): boolean => metadata?.[sweepMark] !== undefined || metadata?.['hdi_isfolder'] !== undefined
