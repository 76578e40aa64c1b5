// Started by the conformance suite: writes a large object and reads it back, and says how much memory that took on top.
import { silentLog } from '../../src/log.js'
import { openStorage } from '../../src/storage/registry.js'
import { bytes, digestOf } from './bytes.js'

const { type, config, size, parallelUploads } = JSON.parse(process.env['BACKUPD_TEST_WRITER'] ?? '{}') as { type: string; config: Record<string, unknown>; size: number; parallelUploads: number }
const { signal } = new AbortController()
const storage = await openStorage(type, config, { log: silentLog(), parallelUploads, retryFor: 10_000 })
// What has to be loaded is loaded first; it is the same for any size.
await storage.write('warm', bytes(1, 20_000_000), { signal })
await digestOf(storage.read('warm', { signal }))
const before = process.memoryUsage.rss()
let peak = before
const timer = setInterval(() => { peak = Math.max(peak, process.memoryUsage.rss()) }, 10)
await storage.write('large', bytes(2, size), { signal })
const read = await digestOf(storage.read('large', { signal }))
clearInterval(timer)
await storage.close()
process.stdout.write(JSON.stringify({ grown: peak - before, read }))
