import type { Readable } from 'node:stream'
import { readAhead } from './ahead.js'
import { ifThere } from './asking.js'
import { blobsOf, isMarker } from './azure-blobs.js'
import { configSchema, openService, type AzureConfig } from './azure-client.js'
import { azureCode, azureFailure } from './azure-failure.js'
import { sweepAzure } from './azure-sweep.js'
import { largestObject, uploadToAzure } from './azure-upload.js'
import { storageError } from './failure.js'
import { openRanges } from './ranges.js'
import type { StorageAdapter, StorageBackend, StorageContext, StoredObject } from './storage.js'

const openAzure = async (config: AzureConfig, context: StorageContext): Promise<StorageAdapter> => {
  const service = await openService(config, context)
  const { container, prefix, ask, nameOf } = service
  const { log, retryFor, parallelUploads } = context

  const head = async (key: string, signal: AbortSignal): Promise<StoredObject | undefined> => {
    const found = await ifThere(ask(`look at ${nameOf(key)}`, signal, (abortSignal) => container.getBlobClient(prefix + key).getProperties({ abortSignal })))
    return found === undefined || isMarker(found.metadata) ? undefined : { key, size: found.contentLength ?? 0, modifiedAt: found.lastModified }
  }

  return {
    type: 'azure_blob',
    capabilities: { parallelUpload: true, exactTimes: true, maxObjectSize: largestObject },
    location: nameOf,
    write: (key, source, { signal }) =>
      uploadToAzure({ blob: container.getBlockBlobClient(prefix + key), name: nameOf(key), tier: config.access_tier, parallel: parallelUploads, log, ask }, source, signal),
    read: (key, { offset, length, signal }) =>
      readAhead<string>({
        key: nameOf(key), offset, length, retryFor, signal, log, classify: azureFailure,
        open: openRanges({
          name: nameOf(key),
          sizeOf: async (stop) => (await head(key, stop))?.size,
          get: async ({ range, tag }, stop) => {
            const count = range.end === undefined ? undefined : range.end - range.offset
            try {
              const got = await container.getBlobClient(prefix + key).download(range.offset, count, { abortSignal: stop, ...(tag === undefined ? {} : { conditions: { ifMatch: tag } }) })
              if (isMarker(got.metadata)) throw storageError('storage.not_found', `read of ${nameOf(key)}: there is no such object`)
              return { body: got.readableStreamBody as Readable, contentRange: got.contentRange, contentLength: got.contentLength, tag: got.etag }
            } catch (error) {
              if (azureCode(error) === 'InvalidRange') return undefined
              throw error
            }
          },
        }),
      }, parallelUploads),
    stat: (key, { signal }) => head(key, signal),
    list: async function* (start, { signal }) {
      for await (const { name, properties, metadata } of blobsOf(service, start, { includeMetadata: true }, signal)) {
        if (isMarker(metadata) || name.endsWith('/')) continue
        yield { key: name.slice(prefix.length), size: properties.contentLength ?? 0, modifiedAt: properties.lastModified }
      }
    },
    remove: async (key, { signal }) => {
      await ifThere(ask(`removal of ${nameOf(key)}`, signal, (abortSignal) => container.deleteBlob(prefix + key, { abortSignal, deleteSnapshots: 'include' })))
    },
    sweep: sweepAzure(service),
    close: async () => service.close(),
  }
}

/** Azure Blob Storage: block blobs of one container. */
export const azureBackend: StorageBackend = {
  type: 'azure_blob',
  configSchema,
  secretFields: ['account_key', 'sas_token', 'connection_string'],
  leastRights: 'a SAS token for this container alone with rcwdl (read, create, write, delete, list), made from an access policy that can be ended',
  open: (config, context) => openAzure(config as AzureConfig, context),
}
