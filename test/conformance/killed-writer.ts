// Started by the conformance suite, which kills it: writes an object that never ends.
import { setTimeout as delay } from 'node:timers/promises'
import { silentLog } from '../../src/log.js'
import { openStorage } from '../../src/storage/registry.js'

const { type, config, key, size, parallelUploads } = JSON.parse(process.env['BACKUPD_TEST_WRITER'] ?? '{}') as { type: string; config: Record<string, unknown>; key: string; size: number; parallelUploads: number }

const source = async function* () {
  for (let sent = 0; sent < size; sent += 65_536) yield Buffer.alloc(65_536, 'x')
  // Time for what is in flight to arrive; then the parent may strike.
  await delay(300)
  process.stdout.write('written\n')
  await delay(600_000)
}

const storage = await openStorage(type, config, { log: silentLog(), parallelUploads, retryFor: 1000 })
await storage.write(key, source(), { signal: new AbortController().signal })
