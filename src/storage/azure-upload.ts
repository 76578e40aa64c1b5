import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import type { BlockBlobClient } from '@azure/storage-blob'
import type { Log } from '../log.js'
import type { AskAzure } from './azure-client.js'
import { hasCode, storageError } from './failure.js'
import type { ByteSource } from './storage.js'
import { sendWholeOrParts } from './whole-or-parts.js'

const MiB = 1024 * 1024

/** Blocks of one object (https://learn.microsoft.com/rest/api/storageservices/put-block). */
export const mostBlocks = 50_000
// Unknown lengths: small blocks at first, larger ones later, none that would fill the memory.
const sizes: readonly (readonly [from: number, size: number])[] = [[15_000, 64 * MiB], [10_000, 32 * MiB], [5_000, 16 * MiB], [0, 8 * MiB]]

/** Bytes of the block with this number. */
export const blockSize = (index: number): number => (sizes.find(([from]) => index >= from) as readonly [number, number])[1]

/** What fits into all blocks: 2.4 TiB. */
export const largestObject = sizes.reduce(({ sum, next }, [from, size]) => ({ sum: sum + (next - from) * size, next: from }), { sum: 0, next: mostBlocks }).sum

// The time of staging, so that a sweep can tell a live upload from an abandoned one; ids of one object must be of one length.
const blockId = (upload: string, index: number): string => Buffer.from(`${Date.now().toString(36).padStart(9, '0')}-${upload}-${String(index).padStart(5, '0')}`).toString('base64')

/** When a block of ours was staged, milliseconds since 1970; undefined for somebody else's. */
export const stagedAt = (id: string): number | undefined => {
  const found = /^([0-9a-z]{9})-[0-9a-f]{12}-\d{5}$/.exec(Buffer.from(id, 'base64').toString('latin1'))?.[1]
  return found === undefined ? undefined : parseInt(found, 36)
}

// Progress is seen from one to the next; the system's own buffer of a connection holds several.
const slice = 512 * 1024

const slices = function* (data: Buffer): Generator<Buffer> {
  for (let at = 0; at < data.length; at += slice) yield data.subarray(at, at + slice)
}

/** Our own mark on an object: tells after a lost answer whether it is the one of this upload. */
export const uploadMark = 'backupd_upload'

export interface AzureTarget {
  blob: BlockBlobClient
  name: string
  tier: string | undefined
  parallel: number
  log: Log
  ask: AskAzure
}

const compare = (what: string, sent: Buffer, kept: Uint8Array | undefined): void => {
  // Not every service answers with it; it has compared the header itself then.
  if (kept !== undefined && kept.length > 0 && !sent.equals(kept)) throw storageError('storage.checksum', `${what}: the service has other bytes than were sent`)
}

/** Uploads `source`: a small one in one request, others in blocks, several in flight, that become the object with the last request. */
export const uploadToAzure = async ({ blob, name, tier, parallel, log, ask }: AzureTarget, source: ByteSource, signal: AbortSignal): Promise<{ size: number }> => {
  const upload = randomBytes(6).toString('hex')
  const attributes = { metadata: { [uploadMark]: upload }, blobHTTPHeaders: { blobContentType: 'application/octet-stream' }, ...(tier === undefined ? {} : { tier }) }
  const begun = Date.now()

  const put = (data: Buffer, stop: AbortSignal): Promise<void> =>
    ask(`write of ${name}`, stop, async (abortSignal, touch) => {
      // In slices, so that progress is seen on a slow line.
      const answer = await blob.upload(() => Readable.from(slices(data)), data.length, { ...attributes, abortSignal, onProgress: touch })
      compare(`write of ${name}`, createHash('md5').update(data).digest(), answer.contentMD5)
    })

  const stage = (data: Buffer, index: number, stop: AbortSignal): Promise<string> => {
    if (index >= mostBlocks) throw storageError('storage.too_large', `write of ${name}: more than ${mostBlocks} blocks`)
    const transactionalContentMD5 = createHash('md5').update(data).digest()
    const what = `block ${index + 1} of ${name}`
    return ask(what, stop, async (abortSignal, touch) => {
      const id = blockId(upload, index)
      const answer = await blob.stageBlock(id, () => Readable.from(slices(data)), data.length, { transactionalContentMD5, abortSignal, onProgress: touch })
      compare(what, transactionalContentMD5, answer.contentMD5)
      return id
    })
  }

  const commit = async (ids: string[]): Promise<void> => {
    try {
      await ask(`end of the upload of ${name}`, signal, (abortSignal) => blob.commitBlockList(ids, { ...attributes, abortSignal }))
    } catch (error) {
      if (!hasCode(error, 'storage.changed')) throw error
      // Another writer of this key ended in between, which drops the blocks of all others: as if it had replaced this object at once.
      const found = await ask(`look at ${name}`, signal, (abortSignal) => blob.getProperties({ abortSignal }))
      const changed = found.lastModified?.getTime() ?? 0
      if (found.metadata?.[uploadMark] === undefined || changed < begun - 1000) throw error
      log.warn({ name }, 'another upload of the same object ended first and has replaced this one')
    }
  }

  return sendWholeOrParts({
    source, size: blockSize, parallel, signal,
    whole: put,
    part: ({ data, index }, stop) => stage(data, index, stop),
    complete: (_size, ids) => commit(ids),
  })
}
