import { z } from 'zod'
import { messageOf } from '../errors.js'
import { readAhead } from './ahead.js'
import { allPages, ifThere } from './asking.js'
import { hasCode, storageError } from './failure.js'
import { endpointUrl, text } from './fields.js'
import { createGcsClient, type Authorizer, type GcsObject } from './gcs-client.js'
import { gcsFailure } from './gcs-failure.js'
import { sweepGcs } from './gcs-sweep.js'
import { uploadToGcs } from './gcs-upload.js'
import { isPartial, normalisePrefix } from './prefix.js'
import { openRanges } from './ranges.js'
import type { Resolved, StorageAdapter, StorageBackend, StorageContext, StoredObject } from './storage.js'

const isJson = (value: string): boolean => {
  try {
    return typeof JSON.parse(value) === 'object'
  } catch {
    return false
  }
}

const configSchema = z.object({
  bucket_name: text,
  project_id: text.optional(),
  /** File of a service account key or of workload identity federation. Without one and without credentials_json: application default credentials. */
  credentials_path: text.optional(),
  /** The content of such a file. */
  credentials_json: text.refine(isJson, 'the JSON text of a credentials file').optional(),
  prefix: text.optional(),
  /** Another address of the service. Without credentials given, requests to it are not signed. */
  api_endpoint: endpointUrl.optional(),
  storage_class: text.optional(),
}).refine((config) => config.credentials_path === undefined || config.credentials_json === undefined, 'only one of credentials_path and credentials_json')
type GcsConfig = Resolved<z.output<typeof configSchema>, 'credentials_json'>

const TiB = 2 ** 40
const fields = 'name,size,updated,generation,crc32c,metadata'

// The client library is used for credentials only. Its uploads are sequential and retry the whole or nothing, and its downloads hang when a
// connection breaks; the requests themselves are few and documented.
const loadAuthorizer = async (config: GcsConfig): Promise<{ authorizer: Authorizer | undefined; endpoint: string }> => {
  let library
  try {
    library = await import('@google-cloud/storage')
  } catch (error) {
    throw storageError('storage.missing_package', `the package @google-cloud/storage cannot be loaded: ${messageOf(error)}`, { cause: error })
  }
  const client = new library.Storage({
    ...(config.project_id === undefined ? {} : { projectId: config.project_id }),
    ...(config.credentials_path === undefined ? {} : { keyFilename: config.credentials_path }),
    ...(config.credentials_json === undefined ? {} : { credentials: JSON.parse(config.credentials_json.reveal()) as Record<string, string> }),
  })
  const anonymous = config.api_endpoint !== undefined && config.credentials_path === undefined && config.credentials_json === undefined
  return { authorizer: anonymous ? undefined : client.authClient, endpoint: (config.api_endpoint ?? client.apiEndpoint).replace(/\/+$/, '') }
}

const openGcs = async (config: GcsConfig, context: StorageContext): Promise<StorageAdapter> => {
  const { authorizer, endpoint } = await loadAuthorizer(config)
  const { log, retryFor } = context
  const bucket = config.bucket_name
  const prefix = normalisePrefix(config.prefix)
  const client = createGcsClient({ endpoint, bucket, authorizer, log, retryFor })
  const nameOf = (key: string): string => `gs://${bucket}/${prefix}${key}`
  const objects = `/storage/v1/b/${encodeURIComponent(bucket)}/o`
  const pathOf = (key: string): string => `${objects}/${encodeURIComponent(prefix + key)}`
  const describe = (key: string, { size, updated }: GcsObject): StoredObject => ({ key, size: Number(size ?? 0), modifiedAt: updated === undefined ? undefined : new Date(updated) })

  const look = (key: string, signal: AbortSignal): Promise<GcsObject | undefined> =>
    ifThere(client.ask(`look at ${nameOf(key)}`, { method: 'GET', url: client.url(pathOf(key), { fields }), signal }).then(({ text: found }) => JSON.parse(found) as GcsObject))

  return {
    type: 'gcs',
    capabilities: { parallelUpload: true, exactTimes: true, maxObjectSize: 5 * TiB },
    location: nameOf,
    write: (key, source, { signal }) =>
      uploadToGcs({ client, name: prefix + key, storageClass: config.storage_class, parallel: context.parallelUploads, signal, look: (stop) => look(key, stop) }, source),
    read: (key, { offset, length, signal }) =>
      readAhead<string>({
        key: nameOf(key), offset, length, retryFor, signal, log, classify: gcsFailure,
        open: openRanges({
          name: nameOf(key),
          sizeOf: async (stop) => {
            const found = await look(key, stop)
            return found === undefined ? undefined : Number(found.size ?? 0)
          },
          get: async ({ header, tag }, stop) => {
            const what = `read of ${nameOf(key)}`
            const request = { method: 'GET' as const, url: client.url(pathOf(key), { alt: 'media', generation: tag }), headers: header === undefined ? {} : { range: header }, signal: stop }
            try {
              const { status, headers, body } = await client.once(what, request, (answer) => answer === 200 || answer === 206 || answer === 416)
              if (status === 416) body.destroy()
              if (status === 416) return undefined
              const generation = headers['x-goog-generation']
              return { body, contentRange: headers['content-range'], contentLength: Number(headers['content-length'] ?? 0), tag: generation === undefined ? undefined : String(generation) }
            } catch (error) {
              if (tag !== undefined && hasCode(error, 'storage.not_found')) throw storageError('storage.changed', `${what}: it was replaced or removed while it was read`, { cause: error })
              throw error
            }
          },
        }),
      }, context.parallelUploads),
    stat: async (key, { signal }) => {
      const found = await look(key, signal)
      return found === undefined ? undefined : describe(key, found)
    },
    list: async function* (start, { signal }) {
      const items = allPages(async (pageToken: string | undefined) => {
        const { text: page } = await client.ask(`list of ${nameOf(start)}`, {
          method: 'GET', url: client.url(objects, { prefix: prefix + start, maxResults: '1000', fields: 'nextPageToken,items(name,size,updated)', pageToken }), signal,
        })
        const { items: found = [], nextPageToken } = JSON.parse(page) as { items?: GcsObject[]; nextPageToken?: string }
        return { items: found, next: nextPageToken }
      })
      for await (const item of items) {
        const key = item.name.slice(prefix.length)
        if (key !== '' && !key.endsWith('/') && !isPartial(key)) yield describe(key, item)
      }
    },
    remove: async (key, { signal }) => {
      await ifThere(client.ask(`removal of ${nameOf(key)}`, { method: 'DELETE', url: client.url(pathOf(key)), signal }))
    },
    sweep: sweepGcs({ client, prefix, nameOf }),
    close: async () => client.close(),
  }
}

/** Google Cloud Storage. */
export const gcsBackend: StorageBackend = {
  type: 'gcs',
  configSchema,
  secretFields: ['credentials_json'],
  leastRights: 'storage.objects.create, get, list and delete, and storage.multipartUploads.create, abort, list and listParts, on this bucket alone',
  open: (config, context) => openGcs(config as GcsConfig, context),
}
