import type * as Sdk from '@azure/storage-blob'
import type { ContainerClient } from '@azure/storage-blob'
import { z } from 'zod'
import { messageOf, throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import { Secret } from '../secret.js'
import { createAgents } from './agents.js'
import { azureFailure } from './azure-failure.js'
import { azurePipeline } from './azure-pipeline.js'
import { storageError } from './failure.js'
import { text } from './fields.js'
import { normalisePrefix } from './prefix.js'
import { silence } from './resume.js'
import { retry } from './retry.js'
import type { Resolved, StorageContext } from './storage.js'
import { linkedAbort, within } from './wait.js'

/** `config_data` of a storage in Azure. */
export const configSchema = z.object({
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
export type AzureConfig = Resolved<z.output<typeof configSchema>, 'account_key' | 'sas_token' | 'connection_string'>

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

/** One request with retries; `touch` says that there was progress. */
export type AskAzure = <T>(what: string, signal: AbortSignal, action: (signal: AbortSignal, touch: () => void) => Promise<T>) => Promise<T>

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

/** The container, the client for it, and how it is asked. */
export interface AzureService {
  container: ContainerClient
  /** Of the container, without a signature. */
  address: string
  /** With a slash behind, or empty. */
  prefix: string
  log: Log
  ask: AskAzure
  nameOf(key: string): string
  close(): void
}

/** Loads the SDK and makes a client; nothing is asked of the service yet. */
export const openService = async (config: AzureConfig, { log, retryFor }: StorageContext): Promise<AzureService> => {
  const agents = createAgents()
  const container = containerOf(await loadSdk(), config, agents)
  const prefix = normalisePrefix(config.prefix)
  const address = container.url.replace(/\?.*$/, '')
  return {
    container, address, prefix, log,
    ask: (what, signal, action) => retry(() => once(what, signal, action), { retryFor, signal, log, what }),
    nameOf: (key) => `${address}/${prefix}${key}`,
    close: () => {
      agents.plain.destroy()
      agents.secure.destroy()
    },
  }
}
