import { randomUUID } from 'node:crypto'
import { throwIfAborted } from '../errors.js'
import { crc32c, crcText } from './crc32c.js'
import { hasCode } from './failure.js'
import type { GcsObject } from './gcs-client.js'
import { multipart, partSize } from './gcs-multipart.js'
import { compare, landed, resource, type GcsUpload } from './gcs-object.js'
import { resumable } from './gcs-resumable.js'
import type { ByteSource } from './storage.js'
import { sendWholeOrParts } from './whole-or-parts.js'

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

/** Uploads `source`: small ones in one request, else in parallel parts, or chunk after chunk in one session where `parallel` is 1. All or nothing. */
export const uploadToGcs = async (upload: GcsUpload, source: ByteSource): Promise<{ size: number }> => {
  const { parallel, signal } = upload
  if (parallel === 1) return resumable(upload, source)
  const parts = multipart(upload, signal)
  try {
    return await sendWholeOrParts({
      source, size: partSize, parallel, signal,
      whole: (data, stop) => putWhole(upload, data, stop),
      part: (chunk, stop) => parts.part(chunk, stop),
      complete: (size) => parts.complete(size),
    })
  } catch (error) {
    await parts.abort()
    throw error
  }
}
