import { messageOf } from '../errors.js'
import { unavailable } from './errors.js'

/** What is used of the optional package `lz4`. Sizes are bytes; 0 is a block that did not fit. */
export interface Lz4Native {
  encodeBlock(input: Uint8Array, output: Uint8Array): number
  decodeBlock(input: Uint8Array, output: Uint8Array): number
  utils: { bindings: { compressHCLimited(input: Uint8Array, output: Uint8Array, size: number, level: number): number } }
}

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
