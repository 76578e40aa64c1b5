import { createGunzip, gzip as gzipCallback } from 'node:zlib'
import { promisify } from 'node:util'
import { abortable } from '../storage/bytes.js'
import type { ByteSource } from '../storage/storage.js'
import type { Codec } from './codec.js'
import { corrupt } from './errors.js'
import { checkedLevel } from './levels.js'
import { throughTransform } from './transform.js'

const compress = promisify(gzipCallback)

/** Bytes of output that zlib is given room for at once; one trip to its thread for a whole frame. */
const ROOM = 64 * 1024

async function* decompress(source: ByteSource, signal: AbortSignal): AsyncGenerator<Buffer, void, void> {
  const gunzip = createGunzip({ chunkSize: 1024 * 1024 })
  let fed = 0
  const counted = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of abortable(source, signal)) {
      fed += chunk.length
      if (chunk.length > 0) yield chunk
    }
  }
  yield* throughTransform(counted(), gunzip, (error) => corrupt('gzip', 'it cannot be decompressed', error))
  if (fed === 0) throw corrupt('gzip', 'it is empty')
  // zlib stops without an error at zero bytes behind a member, taking them for padding.
  if (gunzip.bytesWritten !== fed) throw corrupt('gzip', `${fed - gunzip.bytesWritten} bytes follow its end`)
}

/** gzip members (RFC 1952), by zlib. */
export const gzip: Codec = {
  type: 'gzip',
  suffix: '.gz',
  levels: { min: 1, max: 9, default: 6 },
  unavailable: () => Promise.resolve(undefined),
  compressor: async ({ level: wanted }) => {
    const level = checkedLevel(gzip, wanted)
    return {
      compress: (frame) => compress(frame, { level, chunkSize: frame.length + ROOM }),
      close: () => Promise.resolve(),
    }
  },
  decompress: (source, { signal }) => decompress(source, signal),
}
