import { randomUUID } from 'node:crypto'
import { messageOf, throwIfAborted } from '../errors.js'
import { sendChunks, type Chunk } from './chunks.js'
import { combineCrc32c, crc32c, crcText } from './crc32c.js'
import { hasCode, storageError } from './failure.js'
import { gcsFailure } from './gcs-failure.js'
import type { GcsClient, GcsObject } from './gcs-client.js'
import { textOf } from './http.js'
import { retryClock } from './retry.js'
import type { ByteSource } from './storage.js'

const MiB = 1024 * 1024

/** Parts of an XML multipart upload: https://cloud.google.com/storage/docs/multipart-uploads allows 10,000 of 5 MiB to 5 GiB. */
const partLimit = 10_000
const partSize = (index: number): number => (index < 1_000 ? 8 : index < 2_000 ? 16 : 64) * MiB

/** What fits into 10,000 parts without holding more than 64 MiB of one in memory, bytes. */
export const multipartLimit = (1_000 * 8 + 1_000 * 16 + 8_000 * 64) * MiB

// Must be a multiple of 256 KiB.
const resumableChunk = 8 * MiB
const memoryInFlight = 96 * MiB
const cleanUpTime = 30_000
const mark = 'backupd-upload'

export interface GcsUpload {
  client: GcsClient
  /** With the prefix. */
  name: string
  storageClass: string | undefined
  parallel: number
  signal: AbortSignal
  /** The object's resource, or undefined when there is none. */
  look(signal: AbortSignal): Promise<GcsObject | undefined>
}

const cleaningUp = async (upload: GcsUpload, what: string, action: (signal: AbortSignal) => Promise<unknown>): Promise<void> => {
  try {
    await action(AbortSignal.timeout(cleanUpTime))
  } catch (error) {
    upload.client.log.warn({ name: upload.name, error: messageOf(error) }, `could not ${what}; it expires by itself or is swept`)
  }
}

/** Whether the object is the one that was marked with `id`, and whole: asked when an answer was lost. */
const landed = async ({ look, signal }: GcsUpload, id: string, size: number): Promise<boolean> => {
  try {
    const found = await look(signal)
    return found?.metadata?.[mark] === id && found.size === String(size)
  } catch {
    throwIfAborted(signal)
    return false
  }
}

const compare = async (upload: GcsUpload, size: number, crc: number, found: GcsObject): Promise<void> => {
  if (found.size === String(size) && (found.crc32c === undefined || found.crc32c === crcText(crc))) return
  // It must not stay where a reader would take it for the object.
  await cleaningUp(upload, 'remove a damaged object', (signal) => upload.client.once(`removal of ${upload.name}`, {
    method: 'DELETE', signal, url: upload.client.url(`/storage/v1/b/${encodeURIComponent(upload.client.bucket)}/o/${encodeURIComponent(upload.name)}`, { generation: found.generation }),
  }, (status) => status < 300 || status === 404))
  throw storageError('storage.checksum', `write of ${upload.name}: the service holds other bytes than were sent (size ${found.size ?? 'unknown'} of ${size}, CRC32C ${found.crc32c ?? 'unknown'})`, { retryable: false })
}

const resource = ({ name, storageClass }: GcsUpload, id: string): string =>
  JSON.stringify({ name, contentType: 'application/octet-stream', metadata: { [mark]: id }, ...(storageClass === undefined ? {} : { storageClass }) })

// A request that the service carries out late, after it was repeated, must not replace anything: hence the generation.
const currentGeneration = async ({ look, signal }: GcsUpload): Promise<string> => {
  try {
    return (await look(signal))?.generation ?? '0'
  } catch (error) {
    // Who may only create cannot replace either.
    if (hasCode(error, 'storage.denied')) return '0'
    throw error
  }
}

/** One session, chunk after chunk, each resumed at the byte that the service has: https://cloud.google.com/storage/docs/performing-resumable-uploads. */
const resumable = async (upload: GcsUpload, source: ByteSource): Promise<{ size: number }> => {
  const { client, name, signal } = upload
  const what = `write of ${name}`
  const id = randomUUID()
  let session: string | undefined
  let crc = 0
  let stored: GcsObject | undefined

  const begin = async (stop: AbortSignal): Promise<string> => {
    // No precondition: a session is finished once, so a repeated or late request of it cannot replace anything.
    const url = client.url(`/upload/storage/v1/b/${encodeURIComponent(client.bucket)}/o`, { uploadType: 'resumable', name })
    const headers = { 'content-type': 'application/json; charset=utf-8', 'x-upload-content-type': 'application/octet-stream' }
    const { answer } = await client.ask(what, { method: 'POST', url, headers, body: Buffer.from(resource(upload, id)), signal: stop })
    if (answer.headers.location === undefined) throw storageError('storage.failed', `${what}: the service gave no upload session`)
    return answer.headers.location
  }

  const put = async (url: string, body: Buffer, range: string, stop: AbortSignal): Promise<number | GcsObject> => {
    const answer = await client.once(what, { method: 'PUT', url, headers: { 'content-range': range }, body, signal: stop }, (status) => status === 200 || status === 201 || status === 308)
    const text = await textOf(answer)
    if (answer.status !== 308) return JSON.parse(text) as GcsObject
    const reached = /bytes=0-(\d+)/.exec(answer.headers.range ?? '')?.[1]
    return reached === undefined ? 0 : Number(reached) + 1
  }

  const send = async (chunk: Chunk, stop: AbortSignal): Promise<void> => {
    const url = (session ??= await begin(stop))
    crc = crc32c(chunk.data, crc)
    const end = chunk.offset + chunk.data.length
    const total = chunk.last ? String(end) : '*'
    const clock = retryClock({ retryFor: client.retryFor, signal: stop, log: client.log, what })
    let position = chunk.offset
    for (let asked = false; ; ) {
      try {
        // After a failure first ask how far the service got.
        const rest = chunk.data.subarray(position - chunk.offset)
        const range = asked ? `bytes */${total}` : rest.length === 0 ? `bytes */${total}` : `bytes ${position}-${end - 1}/${total}`
        const result = await put(url, asked ? Buffer.alloc(0) : rest, range, stop)
        if (typeof result !== 'number') {
          stored = result
          return
        }
        if (result < chunk.offset || result > end) throw storageError('storage.incomplete', `${what}: the service lost bytes it had (it has ${result}, was at ${chunk.offset})`, { retryable: false })
        if (result > position) clock.progress()
        else if (!asked && rest.length > 0) throw storageError('storage.incomplete', `${what}: the service took none of ${rest.length} bytes`)
        position = result
        if (position === end && !chunk.last) return
        asked = false
      } catch (error) {
        throwIfAborted(stop)
        await clock.failed(gcsFailure(error, what))
        asked = true
      }
    }
  }

  try {
    const { size } = await sendChunks({ source, size: resumableChunk, parallel: 1, signal, send })
    if (stored === undefined) throw storageError('storage.failed', `${what}: the service did not finish the upload`)
    await compare(upload, size, crc, stored)
    return { size }
  } catch (error) {
    const url = session
    if (url !== undefined && stored === undefined) {
      await cleaningUp(upload, 'cancel an upload', (stop) => client.once(what, { method: 'DELETE', url, signal: stop }, (status) => status < 300 || status === 499 || status === 404 || status === 410))
    }
    throw error
  }
}

const escapeXml = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')

/** An object that fits into one request. */
const putWhole = async (upload: GcsUpload, data: Buffer, stop: AbortSignal): Promise<void> => {
  const { client, name } = upload
  const what = `write of ${name}`
  const id = randomUUID()
  const crc = crc32c(data)
  const boundary = `backupd-${randomUUID()}`
  const about = { ...(JSON.parse(resource(upload, id)) as object), crc32c: crcText(crc) }
  const body = Buffer.concat([
    Buffer.from(`--${boundary}\r\ncontent-type: application/json; charset=utf-8\r\n\r\n${JSON.stringify(about)}\r\n--${boundary}\r\ncontent-type: application/octet-stream\r\n\r\n`),
    data, Buffer.from(`\r\n--${boundary}--\r\n`),
  ])
  for (let rivals = 0; ; rivals += 1) {
    const url = client.url(`/upload/storage/v1/b/${encodeURIComponent(client.bucket)}/o`, { uploadType: 'multipart', ifGenerationMatch: await currentGeneration(upload) })
    try {
      const { text } = await client.ask(what, { method: 'POST', url, headers: { 'content-type': `multipart/related; boundary=${boundary}` }, body, signal: stop })
      return await compare(upload, data.length, crc, JSON.parse(text) as GcsObject)
    } catch (error) {
      throwIfAborted(stop)
      // A precondition that fails on repetition may be our own first success, whose answer was lost; else somebody else wrote meanwhile.
      if (!hasCode(error, 'storage.changed', 'storage.connection_lost', 'storage.timeout', 'storage.unavailable')) throw error
      if (await landed(upload, id, data.length)) return
      if (error.code !== 'storage.changed' || rivals === 4) throw error
    }
  }
}

/** Parts in any order, several in flight: the XML API, because the JSON API has no parallel upload but `compose`, which leaves pieces that must be deleted (and are billed under soft delete and retention). */
const multipart = (upload: GcsUpload, stop: AbortSignal): { part(chunk: Chunk, stop: AbortSignal): Promise<void>; complete(size: number): Promise<void>; abort(): Promise<void> } => {
  const { client, name, storageClass } = upload
  const what = `write of ${name}`
  const id = randomUUID()
  const path = `/${encodeURIComponent(client.bucket)}/${name.split('/').map(encodeURIComponent).join('/')}`
  const parts: { etag: string; crc: number; size: number }[] = []
  let begun: Promise<string> | undefined

  const begin = async (): Promise<string> => {
    const headers = { 'content-type': 'application/octet-stream', [`x-goog-meta-${mark}`]: id, ...(storageClass === undefined ? {} : { 'x-goog-storage-class': storageClass }) }
    const { text } = await client.ask(what, { method: 'POST', url: client.url(path, { uploads: '' }), headers, signal: stop })
    const found = /<UploadId>([^<]+)<\/UploadId>/.exec(text)?.[1]
    if (found === undefined) throw storageError('storage.failed', `${what}: the service gave no upload id`)
    return found
  }

  return {
    part: async ({ index, data }, signal) => {
      if (index >= partLimit) {
        throw storageError('storage.too_large', `${what}: more than ${multipartLimit / 2 ** 30} GiB do not fit into ${partLimit} parts`, {
          hint: 'Set max_parallel_uploads to 1 for this schedule: a sequential upload has no such limit. Or use more --jobs, so that large tables become objects of their own.',
        })
      }
      const uploadId = await (begun ??= begin())
      const crc = crc32c(data)
      const { answer } = await client.ask(`part ${index + 1} of ${name}`, {
        method: 'PUT', url: client.url(path, { partNumber: String(index + 1), uploadId }), headers: { 'x-goog-hash': `crc32c=${crcText(crc)}` }, body: data, signal,
      })
      const { etag } = answer.headers
      if (etag === undefined) throw storageError('storage.failed', `part ${index + 1} of ${name}: the service gave no ETag`)
      parts[index] = { etag, crc, size: data.length }
    },
    complete: async (size) => {
      const uploadId = await (begun ??= begin())
      const list = parts.map(({ etag }, index) => `<Part><PartNumber>${index + 1}</PartNumber><ETag>${escapeXml(etag)}</ETag></Part>`).join('')
      const body = Buffer.from(`<CompleteMultipartUpload>${list}</CompleteMultipartUpload>`)
      const crc = parts.reduce((sum, part) => combineCrc32c(sum, part.crc, part.size), 0)
      try {
        const { headers } = await client.again(what, stop, async () => {
          const answer = await client.once(what, { method: 'POST', url: client.url(path, { uploadId }), headers: { 'content-type': 'application/xml' }, body, signal: stop })
          const text = await textOf(answer)
          // As on S3, the service may notice a failure after it began to answer 200.
          if (!text.includes('<CompleteMultipartUploadResult')) throw storageError('storage.unavailable', `${what}: ${/<Message>([^<]*)/.exec(text)?.[1] ?? 'the upload was not completed'}`)
          return answer
        })
        const header = (value: string): string | undefined => headers[value] === undefined ? undefined : String(headers[value])
        const hash = /crc32c=([^,\s]+)/.exec(header('x-goog-hash') ?? '')?.[1]
        const generation = header('x-goog-generation')
        await compare(upload, size, crc, { name, size: String(size), ...(hash === undefined ? {} : { crc32c: hash }), ...(generation === undefined ? {} : { generation }) })
      } catch (error) {
        throwIfAborted(stop)
        if (hasCode(error, 'storage.checksum') || !(await landed(upload, id, size))) throw error
      }
    },
    abort: async () => {
      if (begun === undefined) return
      const pending = begun
      await cleaningUp(upload, 'abort an upload', async (signal) =>
        client.ask(`abort of the upload of ${name}`, { method: 'DELETE', url: client.url(path, { uploadId: await pending }), signal }, (status) => status < 300 || status === 404))
    },
  }
}

/** Uploads `source`: small ones in one request, else in parallel parts, or chunk after chunk in one session where `parallel` is 1. All or nothing. */
export const uploadToGcs = async (upload: GcsUpload, source: ByteSource): Promise<{ size: number }> => {
  if (upload.parallel === 1) return resumable(upload, source)
  const parts = multipart(upload, upload.signal)
  let single = false
  try {
    const { size } = await sendChunks({
      source, size: partSize, parallel: upload.parallel, memory: memoryInFlight, signal: upload.signal,
      send: async (chunk, stop) => {
        single = chunk.index === 0 && chunk.last
        if (single) await putWhole(upload, chunk.data, stop)
        else await parts.part(chunk, stop)
      },
    })
    if (!single) await parts.complete(size)
    return { size }
  } catch (error) {
    await parts.abort()
    throw error
  }
}
