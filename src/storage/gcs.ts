import { z } from 'zod'
import { messageOf } from '../errors.js'
import { readAhead } from './ahead.js'
import { hasCode, storageError } from './failure.js'
import { endpointUrl, text } from './fields.js'
import { createGcsClient, type Authorizer, type GcsObject } from './gcs-client.js'
import { gcsFailure } from './gcs-failure.js'
import { uploadToGcs } from './gcs-upload.js'
import { isPartial, normalisePrefix } from './prefix.js'
import type { Resolved, StorageAdapter, StorageBackend, StorageContext, StoredObject, SweepReport } from './storage.js'

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

const unescapeXml = (value: string): string =>
  value.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&quot;', '"').replaceAll('&apos;', "'").replaceAll('&#39;', "'").replaceAll('&amp;', '&')

const elements = (xml: string, name: string): string[] => [...xml.matchAll(new RegExp(`<${name}>([\\s\\S]*?)</${name}>`, 'g'))].map(([, inner]) => inner ?? '')

const element = (xml: string, name: string): string | undefined => {
  const found = elements(xml, name)[0]
  return found === undefined ? undefined : unescapeXml(found)
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

  const look = async (key: string, signal: AbortSignal): Promise<GcsObject | undefined> => {
    try {
      const { text: found } = await client.ask(`look at ${nameOf(key)}`, { method: 'GET', url: client.url(pathOf(key), { fields }), signal })
      return JSON.parse(found) as GcsObject
    } catch (error) {
      if (hasCode(error, 'storage.not_found')) return undefined
      throw error
    }
  }

  const sweep = async (olderThan: Date, signal: AbortSignal): Promise<SweepReport> => {
    const report: SweepReport = { removed: [], remaining: [] }
    const path = `/${encodeURIComponent(bucket)}`
    let markers: Record<string, string | undefined> | undefined = {}
    while (markers !== undefined) {
      const { text: page } = await client.ask(`list of unfinished uploads in ${nameOf('')}`, { method: 'GET', url: client.url(path, { uploads: '', prefix, ...markers }), signal })
      for (const entry of elements(page, 'Upload')) {
        const [name, uploadId, initiated] = [element(entry, 'Key'), element(entry, 'UploadId'), element(entry, 'Initiated')]
        if (name === undefined || uploadId === undefined || initiated === undefined || !name.startsWith(prefix) || new Date(initiated) >= olderThan) continue
        const key = name.slice(prefix.length)
        try {
          const url = client.url(`${path}/${name.split('/').map(encodeURIComponent).join('/')}`, { uploadId })
          await client.ask(`abort of the upload of ${nameOf(key)}`, { method: 'DELETE', url, signal }, (status) => status < 300 || status === 404)
          report.removed.push(key)
        } catch (error) {
          report.remaining.push({ key, reason: messageOf(error) })
        }
      }
      const more: boolean = element(page, 'IsTruncated') === 'true'
      markers = more ? { 'key-marker': element(page, 'NextKeyMarker'), 'upload-id-marker': element(page, 'NextUploadIdMarker') } : undefined
    }
    return report
  }

  return {
    type: 'gcs',
    capabilities: { parallelUpload: true, exactTimes: true, maxObjectSize: 5 * TiB },
    location: nameOf,
    write: (key, source, { signal }) =>
      uploadToGcs({ client, name: prefix + key, storageClass: config.storage_class, parallel: context.parallelUploads, signal, look: (stop) => look(key, stop) }, source),
    read: (key, { offset, length, signal }) =>
      readAhead<string>({
        key: nameOf(key), offset, length, retryFor, signal, log, classify: gcsFailure,
        open: async (range, tag, stop) => {
          const what = `read of ${nameOf(key)}`
          const nothing = async () => {
            const found = await look(key, stop)
            if (found === undefined) throw storageError('storage.not_found', `${what}: there is no such object`)
            return { body: (async function* () {})(), size: Number(found.size ?? 0), tag: undefined }
          }
          if (range.end !== undefined && range.end <= range.offset) return nothing()
          const whole = range.offset === 0 && range.end === undefined
          const headers: Record<string, string> = whole ? {} : { range: `bytes=${range.offset}-${range.end === undefined ? '' : range.end - 1}` }
          try {
            const answer = await client.once(what, { method: 'GET', url: client.url(pathOf(key), { alt: 'media', generation: tag }), headers, signal: stop }, (status) => status === 200 || status === 206 || status === 416)
            stop.addEventListener('abort', () => answer.body.destroy(), { once: true })
            if (answer.status === 416) {
              answer.body.destroy()
              return await nothing()
            }
            // A server that ignores the range would have its first bytes taken for those in the middle.
            if (!whole && answer.status === 200) throw storageError('storage.unsupported', `${what}: the service does not know ranges`)
            const total = /\/(\d+)$/.exec(answer.headers['content-range'] ?? '')?.[1]
            const generation = answer.headers['x-goog-generation']
            return { body: answer.body, size: Number(total ?? answer.headers['content-length'] ?? 0), tag: generation === undefined ? undefined : String(generation) }
          } catch (error) {
            if (tag !== undefined && hasCode(error, 'storage.not_found')) throw storageError('storage.changed', `${what}: it was replaced or removed while it was read`, { cause: error })
            throw error
          }
        },
      }, context.parallelUploads),
    stat: async (key, { signal }) => {
      const found = await look(key, signal)
      return found === undefined ? undefined : describe(key, found)
    },
    list: async function* (start, { signal }) {
      let pageToken: string | undefined
      do {
        const { text: page } = await client.ask(`list of ${nameOf(start)}`, {
          method: 'GET', url: client.url(objects, { prefix: prefix + start, maxResults: '1000', fields: 'nextPageToken,items(name,size,updated)', pageToken }), signal,
        })
        const { items = [], nextPageToken } = JSON.parse(page) as { items?: GcsObject[]; nextPageToken?: string }
        for (const item of items) {
          const key = item.name.slice(prefix.length)
          if (key !== '' && !key.endsWith('/') && !isPartial(key)) yield describe(key, item)
        }
        pageToken = nextPageToken
      } while (pageToken !== undefined)
    },
    remove: async (key, { signal }) => {
      try {
        await client.ask(`removal of ${nameOf(key)}`, { method: 'DELETE', url: client.url(pathOf(key)), signal })
      } catch (error) {
        if (!hasCode(error, 'storage.not_found')) throw error
      }
    },
    sweep: ({ olderThan, signal }) => sweep(olderThan, signal),
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
