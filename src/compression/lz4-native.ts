import { messageOf } from '../errors.js'
import { unavailable } from './errors.js'
import { encodeFrame, type Lz4Native } from './lz4-frame.js'
import { xxh32 } from './xxhash32.js'

let loading: Promise<{ lz4: Lz4Native } | { missing: string }> | undefined

const load = async (): Promise<{ lz4: Lz4Native } | { missing: string }> => {
  try {
    const name = 'lz4'
    const module = (await import(name)) as { default: Lz4Native }
    return { lz4: module.default }
  } catch (error) {
    const reason = messageOf(error).split('\n')[0] ?? ''
    return {
      missing: `the optional npm package lz4 could not be loaded (${reason}); install a C++ compiler, make and Python (apt-get install build-essential python3), then run: npm rebuild lz4`,
    }
  }
}

/** The package, or why it could not be loaded and how to get it. Tried once. */
export const findLz4 = (): Promise<{ lz4: Lz4Native } | { missing: string }> => (loading ??= load())

/** The package; fails with `compression.unavailable`. */
export const loadLz4 = async (): Promise<Lz4Native> => {
  const found = await findLz4()
  if ('missing' in found) throw unavailable('lz4', found.missing)
  return found.lz4
}

/** Writes `input` as one frame to `output`; gives its length. */
export const compressWithLz4 = async (level: number, input: Uint8Array, output: Buffer): Promise<number> =>
  encodeFrame(await loadLz4(), xxh32, input, output, level)
