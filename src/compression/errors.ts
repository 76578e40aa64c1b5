import { BackupdError, messageOf } from '../errors.js'
import type { CompressionType } from './codec.js'

/** Compressed bytes that are not what their maker wrote. */
export const corrupt = (type: CompressionType, why: string, cause?: unknown): BackupdError =>
  new BackupdError('compression.corrupt', `the ${type} data is damaged: ${cause === undefined ? why : `${why}: ${messageOf(cause)}`}`, {
    kind: 'integrity',
    hint: 'The stored bytes differ from what was written. Check the storage, and use another backup.',
    ...(cause === undefined ? {} : { cause }),
  })

/** A codec that this machine cannot run. */
export const unavailable = (type: CompressionType, why: string): BackupdError =>
  new BackupdError('compression.unavailable', `${type} compression cannot be used here: ${why}`, {
    kind: 'configuration',
    hint: 'Choose zstd or gzip, which need nothing more, or install what is missing.',
  })
