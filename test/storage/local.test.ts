import t from 'tap'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { storageSuite } from '../conformance/storage.js'

const base = await mkdtemp(join(tmpdir(), 'backupd-local-'))
t.teardown(() => rm(base, { recursive: true, force: true }))

await storageSuite(t, {
  name: 'local',
  type: 'local',
  config: (folder) => ({ base_path: join(base, folder) }),
})
