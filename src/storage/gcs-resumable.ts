import { randomUUID } from 'node:crypto'
import { throwIfAborted } from '../errors.js'
import { sendChunks, type Chunk } from './chunks.js'
import { crc32c } from './crc32c.js'
import { storageError } from './failure.js'
import type { GcsObject } from './gcs-client.js'
import { gcsFailure } from './gcs-failure.js'
import { abandon, compare, resource, type GcsUpload } from './gcs-object.js'
import { textOf } from './http.js'
import { retryClock } from './retry.js'
import type { ByteSource } from './storage.js'

// Must be a multiple of 256 KiB.
const resumableChunk = 8 * 1024 * 1024

/** One session, chunk after chunk, each resumed at the byte that the service has: https://cloud.google.com/storage/docs/performing-resumable-uploads. */
export const resumable = async (upload: GcsUpload, source: ByteSource): Promise<{ size: number }> => {
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
      await abandon(upload, 'cancel an upload', (stop) => client.once(what, { method: 'DELETE', url, signal: stop }, (status) => status < 300 || status === 499 || status === 404 || status === 410))
    }
    throw error
  }
}
