import { messageOf, throwIfAborted } from '../errors.js'
import { blobsOf, sweepMark } from './azure-blobs.js'
import type { AzureService } from './azure-client.js'
import { stagedAt } from './azure-upload.js'
import { hasCode } from './failure.js'
import type { StorageAdapter, SweepReport } from './storage.js'

/** Drops the blocks of uploads that nobody ends any more. */
export const sweepAzure = (service: AzureService): StorageAdapter['sweep'] => {
  const { container, address, prefix, ask } = service

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

  return async ({ olderThan, signal }) => {
    const report: SweepReport = { removed: [], remaining: [] }
    let blocked: string | undefined
    for await (const { name, properties, metadata } of blobsOf(service, '', { includeMetadata: true, includeUncommitedBlobs: true }, signal)) {
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
}
