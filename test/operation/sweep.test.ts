import { existsSync, mkdirSync, readdirSync, rmSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { createWorld, type ShownExecution } from './world.js'

interface Swept {
  dry_run: boolean
  folders: { folder: string; objects: number; size: number }[]
  uploads: string[]
  remaining: { key: string; reason: string }[]
}

const old = '20200102T030405Z'
const stamp = (hoursAgo: number): string => new Date(Date.now() - hoursAgo * 3_600_000).toISOString().replace(/[-:]|\.\d+/g, '')

t.test('a sweep removes what no backup is, and nothing else', async (t) => {
  const world = await createWorld(t)
  const put = (key: string, hoursAgo: number, text = 'bytes'): void => {
    const path = join(world.storageDir, key)
    mkdirSync(join(path, '..'), { recursive: true })
    writeFileSync(path, text)
    const time = new Date(Date.now() - hoursAgo * 3_600_000)
    utimesSync(path, time, time)
  }
  await world.ok(['schedule', 'add', 'shop', '--cron', '@daily', '--storage', 'disk'])
  const backup = (await world.ok(['run-now', 'shop', '--json'])).json<ShownExecution>()
  const backupObjects = world.objects()

  put(`${old}-dead-aaaaaa/globals.sql.zst.age`, 1_000)
  put(`${old}-dead-aaaaaa/database.dump.zst.age`, 999, 'more bytes')
  put(`${old}-whole-bbbbbb/manifest.json`, 1_000, '{}')
  put(`${old}-whole-bbbbbb/globals.sql`, 1_000)
  put(`${old}-written-cccccc/globals.sql`, 1)
  put(`${stamp(2)}-young-dddddd/globals.sql`, 1_000)
  put('not-ours/file', 1_000)
  put('file', 1_000)
  put('.backupd-partial/abandoned', 1_000)
  put('.backupd-partial/at-work', 1)

  const sweep = async (...args: string[]): Promise<Swept> => (await world.ok(['storage', 'sweep', 'disk', '--json', ...args])).json<Swept>()
  const everything = world.objects()
  const dead = { folder: `${old}-dead-aaaaaa`, objects: 2, size: 15 }
  const kept = [{ key: `${old}-written-cccccc/`, reason: /not old enough/ }, { key: /-young-dddddd\/$/, reason: /not old enough/ }]
  t.match(await sweep('--dry-run'), { dry_run: true, folders: [dead], uploads: [], remaining: kept })
  t.same(world.objects(), everything, 'a dry run removes nothing')
  t.same(await world.sql('catalog', "SELECT 1 FROM backup_audit_logs WHERE event_type = 'storage.swept'"), [])

  const swept = await sweep()
  t.match(swept, { dry_run: false, folders: [dead], uploads: ['.backupd-partial/abandoned'], remaining: kept })
  t.equal(swept.folders.length, 1)
  t.same(world.objects(), everything.filter((key) => !key.includes('dead') && !key.includes('abandoned')))
  t.notOk(existsSync(join(world.storageDir, `${old}-dead-aaaaaa`)), 'the folder itself too')
  t.match(await world.sql('catalog', "SELECT status, action, resource_name, event_data -> 'folders' AS folders FROM backup_audit_logs WHERE event_type = 'storage.swept'"),
    [{ status: 'success', action: 'delete', resource_name: 'disk', folders: [dead] }])

  put('.backupd-partial/of-a-killed-run', 25)
  t.match(await world.ok(['run-now', 'shop']), { stdout: /removed 1 partial file of processes that were killed/ }, 'without a daemon, the next backup clears it away')
  t.same(readdirSync(join(world.storageDir, '.backupd-partial')), ['at-work'], 'and nothing that may be at work')
  await world.sql('catalog', 'DELETE FROM backup_executions WHERE id > 1')
  for (const name of readdirSync(world.storageDir)) if (/^20.*-shop-/.test(name) && name !== backup.backup_id) rmSync(join(world.storageDir, name), { recursive: true })

  const more = await sweep('--older-than', '0')
  t.same(more.folders.map(({ folder }) => folder.slice(-6)).sort(), ['cccccc', 'dddddd'], 'younger ones when that is wanted')
  t.same(more.uploads, ['.backupd-partial/at-work'])
  t.match((await world.ok(['storage', 'sweep', 'disk'])).stdout, /there is nothing to remove/)
  t.same(world.objects(), [...backupObjects, `${old}-whole-bbbbbb/globals.sql`, `${old}-whole-bbbbbb/manifest.json`, 'file', 'not-ours/file'].sort())
  await world.ok(['verify', String(backup.id), '--level', 'archive'])

  t.equal((await world.run(['storage', 'sweep', 'nowhere'])).code, 3)
  t.equal((await world.run(['storage', 'sweep', 'disk', '--older-than', '-1'])).code, 2)
})

t.test('a folder that the catalog needs stays', async (t) => {
  const world = await createWorld(t)
  await world.sql('shop', "CREATE TABLE noise AS SELECT i, (SELECT string_agg(sha256((i || ' ' || j)::bytea), NULL) FROM generate_series(1, 1000) j) AS b FROM generate_series(1, 200) i")
  await world.ok(['schedule', 'add', 'slow', '--cron', '@daily', '--storage', 'disk', '--compression', 'none', '--bandwidth', '8'])
  const sweep = async (): Promise<Swept> => (await world.ok(['storage', 'sweep', 'disk', '--older-than', '0', '--json'])).json<Swept>()

  const running = world.ok(['run-now', 'slow', '--json'])
  const partials = join(world.storageDir, '.backupd-partial')
  for (const until = Date.now() + 30_000; world.objects().length < 2 && Date.now() < until; ) await sleep(20)
  t.equal(readdirSync(partials).length, 1, 'there is a part on its way')
  t.match(await sweep(), { folders: [], uploads: [], remaining: [{ reason: /execution 1 is running/ }] })
  const backup = (await running).json<ShownExecution>()
  t.match(backup, { status: 'completed', verification_status: 'verified' }, 'a sweep does not disturb a run')

  await world.sql('catalog', "UPDATE backup_executions SET status = 'completed'")
  unlinkSync(join(world.storageDir, backup.backup_id, 'manifest.json'))
  t.match(await sweep(), { folders: [], remaining: [{ key: `${backup.backup_id}/`, reason: /its manifest is gone.*execution 1/ }] })
  await world.sql('catalog', "UPDATE backup_executions SET status = 'failed'")
  t.match(await sweep(), { folders: [{ folder: backup.backup_id }], remaining: [] })
  t.same(world.objects(), [])
})
