import type { Readable } from 'node:stream'
import type * as Sdk from '@azure/storage-blob'
import type { BlobItem, ContainerClient } from '@azure/storage-blob'
import { z } from 'zod'
import { messageOf, throwIfAborted } from '../errors.js'
import { Secret } from '../secret.js'
import { createAgents } from './agents.js'
import { readAhead } from './ahead.js'
import { azureCode, azureFailure } from './azure-failure.js'
import { azurePipeline } from './azure-pipeline.js'
import { largestObject, stagedAt, uploadToAzure } from './azure-upload.js'
import { hasCode, storageError } from './failure.js'
import { text } from './fields.js'
import { normalisePrefix } from './prefix.js'
import { silence } from './resume.js'
import { retry } from './retry.js'
import type { Resolved, StorageAdapter, StorageBackend, StorageContext, StoredObject, SweepReport } from './storage.js'
import { linkedAbort, within } from './wait.js'

const configSchema = z.object({
  container_name: text,
  /** Needed with `account_key`, and to find the endpoint where none is given. */
  account_name: text.optional(),
  account_key: text.optional(),
  sas_token: text.optional(),
  connection_string: text.optional(),
  /** Of the blob service, for other clouds and emulators. Default: https://ACCOUNT.blob.core.windows.net */
  endpoint: text.refine((value) => /^https?:\/\/[^/]/.test(value) && URL.canParse(value), 'a URL such as https://account.blob.core.windows.net').optional(),
  prefix: text.optional(),
  /** Hot, Cool, Cold or Archive. Default: what the account says. */
  access_tier: text.optional(),
}).refine(
  ({ account_name, account_key, sas_token, connection_string, endpoint }) =>
    connection_string !== undefined || (account_key !== undefined && account_name !== undefined) || (sas_token !== undefined && (account_name ?? endpoint) !== undefined),
  'connection_string, or account_name with account_key or sas_token',
)
type AzureConfig = Resolved<z.output<typeof configSchema>, 'account_key' | 'sas_token' | 'connection_string'>

// An empty object for the moment that dropping abandoned blocks takes; never shown, whatever happens then.
const sweepMark = 'backupd_sweep'

const loadSdk = async (): Promise<typeof Sdk> => {
  try {
    return await import('@azure/storage-blob')
  } catch (error) {
    throw storageError('storage.missing_package', `the package @azure/storage-blob cannot be loaded: ${messageOf(error)}`, { cause: error })
  }
}

const containerOf = (sdk: typeof Sdk, config: AzureConfig, agents: ReturnType<typeof createAgents>): ContainerClient => {
  const { account_name: account = '', account_key: key, sas_token: sas, connection_string: connection, container_name: container } = config
  try {
    if (connection !== undefined) {
      // Its parts turn up by themselves in messages.
      for (const part of connection.reveal().matchAll(/(?:AccountKey|SharedAccessSignature)=([^;]+)/g)) new Secret(part[1] as string)
      const parsed = new sdk.ContainerClient(connection.reveal(), container, { retryOptions: { maxTries: 1 } })
      const [, found] = /AccountKey=([^;]+)/.exec(connection.reveal()) ?? []
      if (found === undefined) return parsed
      return new sdk.ContainerClient(parsed.url, azurePipeline(sdk, new sdk.StorageSharedKeyCredential(parsed.accountName, found), agents))
    }
    const base = `${(config.endpoint ?? `https://${account}.blob.core.windows.net`).replace(/\/+$/, '')}/${encodeURIComponent(container)}`
    if (key !== undefined) return new sdk.ContainerClient(base, azurePipeline(sdk, new sdk.StorageSharedKeyCredential(account, key.reveal()), agents))
    return new sdk.ContainerClient(`${base}?${sas?.reveal().replace(/^\?/, '') ?? ''}`, azurePipeline(sdk, new sdk.AnonymousCredential(), agents))
  } catch (error) {
    throw storageError('storage.config_invalid', `the account of the container cannot be used: ${messageOf(error)}`, { cause: error })
  }
}

const openAzure = async (config: AzureConfig, { log, retryFor, parallelUploads }: StorageContext): Promise<StorageAdapter> => {
  const agents = createAgents()
  const container = containerOf(await loadSdk(), config, agents)
  const prefix = normalisePrefix(config.prefix)
  const address = container.url.replace(/\?.*$/, '')
  const nameOf = (key: string): string => `${address}/${prefix}${key}`

  // The SDK waits for ever for a silent server, so time without progress ends the attempt.
  const once = async <T>(what: string, signal: AbortSignal, action: (signal: AbortSignal, touch: () => void) => Promise<T>): Promise<T> => {
    const stop = linkedAbort(signal)
    let timer: NodeJS.Timeout | undefined
    const touch = (): void => {
      clearTimeout(timer)
      timer = setTimeout(() => stop.abort(storageError('storage.timeout', `${what}: the service was silent for ${silence.limit / 1000} s`)), silence.limit)
    }
    touch()
    try {
      return await within(action(stop.signal, touch), { signal: stop.signal })
    } catch (error) {
      throwIfAborted(signal)
      throw azureFailure(stop.signal.aborted ? stop.signal.reason : error, what)
    } finally {
      clearTimeout(timer)
      stop.release()
    }
  }
  const ask = <T>(what: string, signal: AbortSignal, action: (signal: AbortSignal, touch: () => void) => Promise<T>): Promise<T> =>
    retry(() => once(what, signal, action), { retryFor, signal, log, what })

  const head = async (key: string, signal: AbortSignal): Promise<StoredObject | undefined> => {
    try {
      const found = await ask(`look at ${nameOf(key)}`, signal, (abortSignal) => container.getBlobClient(prefix + key).getProperties({ abortSignal }))
      if (found.metadata?.[sweepMark] !== undefined || found.metadata?.['hdi_isfolder'] !== undefined) return undefined
      return { key, size: found.contentLength ?? 0, modifiedAt: found.lastModified }
    } catch (error) {
      if (hasCode(error, 'storage.not_found')) return undefined
      throw error
    }
  }

  const pages = async function* (start: string, options: { includeMetadata?: boolean; includeUncommitedBlobs?: boolean }, signal: AbortSignal): AsyncGenerator<BlobItem, void, undefined> {
    let continuationToken: string | undefined
    do {
      const page = await ask(`list of ${nameOf(start)}`, signal, async (abortSignal) => {
        const flat = container.listBlobsFlat({ prefix: prefix + start, ...options, abortSignal })
        const next = await flat.byPage({ maxPageSize: 5000, ...(continuationToken === undefined ? {} : { continuationToken }) }).next()
        return next.done === true ? undefined : next.value
      })
      yield* page?.segment.blobItems ?? []
      continuationToken = page?.continuationToken === '' ? undefined : page?.continuationToken
    } while (continuationToken !== undefined)
  }

  /** Blocks that no object came of can only be dropped by making one of that name, and removing it. */
  const dropBlocks = async (name: string, signal: AbortSignal): Promise<void> => {
    const blob = container.getBlockBlobClient(name)
    const { etag } = await ask(`sweep of ${name}`, signal, (abortSignal) =>
      blob.commitBlockList([], { metadata: { [sweepMark]: '1' }, conditions: { ifNoneMatch: '*' }, abortSignal }))
    await ask(`sweep of ${name}`, signal, (abortSignal) => blob.delete({ ...(etag === undefined ? {} : { conditions: { ifMatch: etag } }), abortSignal }))
  }

  /** When the newest block of an unfinished upload was staged; undefined when there is an object, or nothing of ours. */
  const abandonedSince = async (name: string, signal: AbortSignal): Promise<number | undefined> => {
    const blocks = await ask(`sweep of ${name}`, signal, (abortSignal) => container.getBlockBlobClient(name).getBlockList('all', { abortSignal }))
    if ((blocks.committedBlocks ?? []).length > 0) return undefined
    const times = (blocks.uncommittedBlocks ?? []).map((block) => stagedAt(block.name) ?? Infinity)
    return times.length === 0 ? undefined : Math.max(...times)
  }

  // Under a policy of the container the empty object would stay for ever.
  const immutable = async (signal: AbortSignal): Promise<boolean> => {
    try {
      const { hasImmutabilityPolicy, hasLegalHold } = await ask(`look at ${address}`, signal, (abortSignal) => container.getProperties({ abortSignal }))
      return hasImmutabilityPolicy === true || hasLegalHold === true
    } catch (error) {
      if (hasCode(error, 'storage.denied', 'storage.auth')) return false
      throw error
    }
  }

  const sweep: StorageAdapter['sweep'] = async ({ olderThan, signal }) => {
    const report: SweepReport = { removed: [], remaining: [] }
    let blocked: string | undefined
    for await (const { name, properties, metadata } of pages('', { includeMetadata: true, includeUncommitedBlobs: true }, signal)) {
      const key = name.slice(prefix.length)
      if ((properties.contentLength ?? 0) > 0) continue
      try {
        if (metadata?.[sweepMark] !== undefined) {
          if (properties.lastModified >= olderThan) continue
          await ask(`sweep of ${name}`, signal, (abortSignal) => container.deleteBlob(name, { abortSignal }))
        } else {
          const since = await abandonedSince(name, signal)
          if (since === undefined || since >= olderThan.getTime()) continue
          blocked ??= (await immutable(signal)) ? 'the container does not let anything be removed; the service drops the blocks a week after the last one was sent' : ''
          if (blocked !== '') {
            report.remaining.push({ key, reason: blocked })
            continue
          }
          await dropBlocks(name, signal)
        }
        report.removed.push(key)
      } catch (error) {
        throwIfAborted(signal)
        // An object came of it meanwhile, or it has gone.
        if (hasCode(error, 'storage.changed', 'storage.not_found')) continue
        report.remaining.push({ key, reason: messageOf(error) })
        // What made an empty object but may not remove it shall not make more of them.
        if (hasCode(error, 'storage.denied', 'storage.locked')) blocked = `not tried: ${messageOf(error)}`
      }
    }
    return report
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
        open: async (range, tag, stop) => {
          const nothing = async () => {
            const found = await head(key, stop)
            if (found === undefined) throw storageError('storage.not_found', `read of ${nameOf(key)}: there is no such object`)
            return { body: (async function* () {})(), size: found.size, tag: undefined }
          }
          const count = range.end === undefined ? undefined : range.end - range.offset
          if (count !== undefined && count <= 0) return nothing()
          try {
            const got = await container.getBlobClient(prefix + key).download(range.offset, count, { abortSignal: stop, ...(tag === undefined ? {} : { conditions: { ifMatch: tag } }) })
            if (got.metadata?.[sweepMark] !== undefined || got.metadata?.['hdi_isfolder'] !== undefined) throw storageError('storage.not_found', `read of ${nameOf(key)}: there is no such object`)
            const body = got.readableStreamBody as Readable
            body.on('error', () => undefined)
            stop.addEventListener('abort', () => body.destroy(), { once: true })
            const total = /\/(\d+)$/.exec(got.contentRange ?? '')?.[1]
            return { body, size: total === undefined ? (got.contentLength ?? 0) : Number(total), tag: got.etag }
          } catch (error) {
            if (azureCode(error) === 'InvalidRange') return nothing()
            throw error
          }
        },
      }, parallelUploads),
    stat: (key, { signal }) => head(key, signal),
    list: async function* (start, { signal }) {
      for await (const { name, properties, metadata } of pages(start, { includeMetadata: true }, signal)) {
        if (metadata?.[sweepMark] !== undefined || metadata?.['hdi_isfolder'] !== undefined || name.endsWith('/')) continue
        yield { key: name.slice(prefix.length), size: properties.contentLength ?? 0, modifiedAt: properties.lastModified }
      }
    },
    remove: async (key, { signal }) => {
      try {
        await ask(`removal of ${nameOf(key)}`, signal, (abortSignal) => container.deleteBlob(prefix + key, { abortSignal, deleteSnapshots: 'include' }))
      } catch (error) {
        if (!hasCode(error, 'storage.not_found')) throw error
      }
    },
    sweep,
    close: async () => {
      agents.plain.destroy()
      agents.secure.destroy()
    },
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
