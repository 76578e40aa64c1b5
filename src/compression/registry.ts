import type { Codec, CompressionType } from './codec.js'
import { gzip } from './gzip.js'
import { lz4 } from './lz4.js'
import { none } from './none.js'
import { zstd } from './zstd.js'

/** Every codec. A new one is a file, a line here and its name in `compressionTypes`. */
export const codecs = { none, gzip, lz4, zstd } as const satisfies Record<CompressionType, Codec>

/** The codec that the name of a part tells by its suffix, with or without `.age` behind it. */
export const codecForKey = (key: string): Codec => {
  const name = key.replace(/\.age$/, '')
  return Object.values(codecs).find(({ suffix }) => suffix !== '' && name.endsWith(suffix)) ?? codecs.none
}
