import { randomUUID } from 'node:crypto'
import { throwIfAborted } from '../errors.js'
import type { Chunk } from './chunks.js'
import { combineCrc32c, crc32c, crcText } from './crc32c.js'
import { hasCode, storageError } from './failure.js'
import { abandon, compare, landed, mark, type GcsUpload } from './gcs-object.js'
import { textOf } from './http.js'

const MiB = 1024 * 1024

/** Parts of an XML multipart upload: https://cloud.google.com/storage/docs/multipart-uploads allows 10,000 of 5 MiB to 5 GiB. */
const partLimit = 10_000
/** Bytes of the part with this number. */
export const partSize = (index: number): number => (index < 1_000 ? 8 : index < 2_000 ? 16 : 64) * MiB

/** What fits into 10,000 parts without holding more than 64 MiB of one in memory, bytes. */
export const multipartLimit = (1_000 * 8 + 1_000 * 16 + 8_000 * 64) * MiB

const escapeXml = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')

/** Parts in any order, several in flight: the XML API, because the JSON API has no parallel upload but `compose`, which leaves pieces that must be deleted (and are billed under soft delete and retention). */
export const multipart = (upload: GcsUpload, stop: AbortSignal): { part(chunk: Chunk, stop: AbortSignal): Promise<void>; complete(size: number): Promise<void>; abort(): Promise<void> } => {
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
      await abandon(upload, 'abort an upload', async (signal) =>
        client.ask(`abort of the upload of ${name}`, { method: 'DELETE', url: client.url(path, { uploadId: await pending }), signal }, (status) => status < 300 || status === 404))
    },
  }
}
