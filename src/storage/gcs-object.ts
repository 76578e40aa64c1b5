import { throwIfAborted } from '../errors.js'
import { crcText } from './crc32c.js'
import { storageError } from './failure.js'
import type { GcsClient, GcsObject } from './gcs-client.js'
import { cleaningUp } from './whole-or-parts.js'

/** Our own mark on an object tells after a lost answer whether it is the one of this upload. */
export const mark = 'backupd-upload'

/** Where and how an upload goes. */
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

/** Cleans up after a failure of this upload. */
export const abandon = (upload: GcsUpload, what: string, action: (signal: AbortSignal) => Promise<unknown>): Promise<void> =>
  cleaningUp(what, { log: upload.client.log, about: { name: upload.name }, action })

/** Whether the object is the one that was marked with `id`, and whole: asked when an answer was lost. */
export const landed = async ({ look, signal }: GcsUpload, id: string, size: number): Promise<boolean> => {
  try {
    const found = await look(signal)
    return found?.metadata?.[mark] === id && found.size === String(size)
  } catch {
    throwIfAborted(signal)
    return false
  }
}

/** Fails, and removes the object, when the service holds other bytes than were sent: `size` of them with the CRC32C `crc`. */
export const compare = async (upload: GcsUpload, size: number, crc: number, found: GcsObject): Promise<void> => {
  if (found.size === String(size) && (found.crc32c === undefined || found.crc32c === crcText(crc))) return
  // It must not stay where a reader would take it for the object.
  await abandon(upload, 'remove a damaged object', (signal) => upload.client.once(`removal of ${upload.name}`, {
    method: 'DELETE', signal, url: upload.client.url(`/storage/v1/b/${encodeURIComponent(upload.client.bucket)}/o/${encodeURIComponent(upload.name)}`, { generation: found.generation }),
  }, (status) => status < 300 || status === 404))
  throw storageError('storage.checksum', `write of ${upload.name}: the service holds other bytes than were sent (size ${found.size ?? 'unknown'} of ${size}, CRC32C ${found.crc32c ?? 'unknown'})`, { retryable: false })
}

/** What is said of an object that is made in one request or session. */
export const resource = ({ name, storageClass }: GcsUpload, id: string): string =>
  JSON.stringify({ name, contentType: 'application/octet-stream', metadata: { [mark]: id }, ...(storageClass === undefined ? {} : { storageClass }) })
