import t from 'tap'
import { catalogOn, serverFor } from '../catalog/server.js'
import type { StorageRow } from '../../src/catalog/storages.js'
import type { HealthContext } from '../../src/health/check.js'
import { storagesCheck } from '../../src/health/storages.js'
import { silentLog } from '../../src/log.js'
import { checkConfig, openStorage, storageBackends } from '../../src/storage/registry.js'
import { setUpOf } from '../../src/storage/rights.js'
import type { ProbeStep, Storage } from '../../src/storage/storage.js'

const ftp = async (tls: string): Promise<Storage> =>
  openStorage('ftp', checkConfig('ftp', { host: 'ftp.example.org', username: 'backup', tls }), { log: silentLog(), parallelUploads: 1, retryFor: 0 })

t.test('FTP without TLS is warned about in health', async (t) => {
  const catalog = await catalogOn(t, await serverFor(t))
  for (const [tls, expected] of [['none', ['healthy', 'warning']], ['explicit', ['healthy']]] as const) {
    // Opened as it would be, and asked nothing: what is told does not come from the server.
    const open = async (): Promise<Storage> => ({ ...(await ftp(tls)), stat: async () => undefined })
    const storages = async () => [{ row: { id: 1, name: 'far', backend_type: 'ftp' } as StorageRow, open }]
    const findings = await storagesCheck.run({
      thorough: false, signal: new AbortController().signal, log: silentLog(), storages, catalog: async () => catalog, probing: () => ({ write: false }),
    } as unknown as HealthContext)
    t.strictSame(findings.map(({ level }) => level), expected, tls)
    if (tls === 'none') t.match(findings[1], { subject: 'storage far', message: /^FTP without TLS: the password/ })
  }
})

t.test('a probe says which set-up the rights make', (t) => {
  const steps = (outcomes: Partial<Record<ProbeStep['name'], ProbeStep['outcome']>>): ProbeStep[] =>
    (['connect', 'write', 'read', 'list', 'remove'] as const).map((name) => ({ name, outcome: outcomes[name] ?? 'ok', message: '' }))
  t.equal(setUpOf(steps({})).setUp, 'full')
  t.equal(setUpOf(steps({ remove: 'denied' })).setUp, 'no delete')
  t.equal(setUpOf(steps({ list: 'denied' })).setUp, 'no list')
  t.equal(setUpOf(steps({ read: 'denied', list: 'denied', remove: 'denied' })).setUp, 'write-only')
  t.equal(setUpOf(steps({ write: 'denied', read: 'skipped', remove: 'skipped' })).setUp, 'unfit')
  t.equal(setUpOf(steps({ connect: 'failed', write: 'skipped', read: 'skipped', list: 'skipped', remove: 'skipped' })).setUp, 'unfit')
  t.equal(setUpOf(steps({ read: 'failed' })).setUp, 'unfit', 'what cannot be read back is no set-up')
  t.end()
})

t.test('every kind of storage names the least rights it needs', (t) => {
  for (const { type, leastRights } of Object.values(storageBackends)) t.ok(leastRights.length > 20, type)
  t.end()
})
