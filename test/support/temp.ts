import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** What a tap test object gives to this folder: a way to run something when the test is over. */
export interface Teardown {
  teardown: (fn: () => unknown) => unknown
}

// tap may be stopped half-way; what is synchronous here still runs then.
const left = new Set<string>()
process.once('exit', () => {
  for (const dir of left) rmSync(dir, { recursive: true, force: true })
})

/** A new empty folder with mode 0700, removed when the test `t` is over or the process ends. */
export const tempDir = (t?: Teardown, name = 'test'): string => {
  const dir = mkdtempSync(join(tmpdir(), `backupd-${name}-`))
  left.add(dir)
  t?.teardown(() => {
    rmSync(dir, { recursive: true, force: true })
    left.delete(dir)
  })
  return dir
}
