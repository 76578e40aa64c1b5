import t, { type Test } from 'tap'
import { execFileSync, spawnSync } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readdir, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { silentLog } from '../../src/log.js'
import { openStorage } from '../../src/storage/registry.js'
import type { Storage } from '../../src/storage/storage.js'
import { bytes, collect } from '../conformance/bytes.js'
import { inParallel } from '../conformance/storage.js'

const signal = new AbortController().signal
const dir = await mkdtemp(join(tmpdir(), 'backupd-disk-'))
t.teardown(() => rm(dir, { recursive: true, force: true }))
const open = async (base: string, more: Record<string, unknown> = {}): Promise<Storage> =>
  openStorage('local', { base_path: base, ...more }, { log: silentLog(), parallelUploads: 1, retryFor: 0 })
const keysOf = async (storage: Storage): Promise<string[]> => {
  const keys: string[] = []
  for await (const { key } of storage.list('', { signal })) keys.push(key)
  return keys.sort()
}

// A real small file system, where the test may mount one.
const mounted = async (c: Test, options: string): Promise<string> => {
  const point = await mkdtemp(join(dir, 'mount-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', point])
  c.teardown(() => execFileSync('umount', [point]))
  return point
}

await t.test('a full disk', async (c) => {
  const point = await mounted(c, 'size=4m')
  const storage = await open(join(point, 'backups'))
  await storage.write('small', bytes(1, 1_000_000), { signal })
  const free = (await storage.freeSpace?.({ signal })) ?? 0
  c.ok(free > 2_500_000 && free < 3_200_000, `${free} bytes are free`)
  await c.rejects(storage.write('folder/large', bytes(1, 10_000_000), { signal }), { code: 'storage.disk_full', hint: /Free/ })
  c.strictSame(await keysOf(storage), ['small'])
  c.strictSame(await readdir(join(point, 'backups', '.backupd-partial')), [], 'what was written is removed')
  await storage.write('fits', bytes(1, 1_000_000), { signal })
  c.match(await (await open(join(point, 'new', 'deep'))).freeSpace?.({ signal }), Number)
})

await t.test('a read-only file system', async (c) => {
  const point = await mounted(c, 'size=4m')
  const storage = await open(point)
  await storage.write('key', bytes(1, 10), { signal })
  execFileSync('mount', ['-o', 'remount,ro', point])
  await c.rejects(storage.write('key', bytes(2, 10), { signal }), { code: 'storage.read_only' })
  await c.rejects(storage.remove('key', { signal }), { code: 'storage.read_only' })
  c.ok((await collect(storage.read('key', { signal }))).equals(await collect(bytes(1, 10))))
  c.match(await storage.probe({ signal }), [{ outcome: 'ok' }, { name: 'write', outcome: 'failed', code: 'storage.read_only' }])
})

await t.test('a disk that is not mounted', async (c) => {
  const point = await mounted(c, 'size=4m')
  await (await open(join(point, 'backups'), { require_mount: 'true' })).write('key', bytes(1, 1), { signal })
  const missing = await open(join(dir, 'not-mounted', 'backups'), { require_mount: true })
  // The test's own folder may be a file system of its own.
  if ((await stat(dir)).dev === (await stat('/')).dev) {
    await c.rejects(missing.write('key', bytes(1, 1), { signal }), { code: 'storage.not_mounted' })
    await c.rejects(stat(join(dir, 'not-mounted')), { code: 'ENOENT' }, 'nothing was made')
  } else c.fail('run this where the folder for temporary files is on the root file system')
})

await t.test('no right, as an ordinary user', async (c) => {
  const base = join(dir, 'rights')
  await mkdir(join(base, 'closed'), { recursive: true, mode: 0o755 })
  await chmod(dir, 0o755)
  await writeFile(join(base, 'closed', 'key'), 'x', { mode: 0o600 })
  const script = `
    import { silentLog } from ${JSON.stringify(new URL('../../src/log.ts', import.meta.url).href)}
    import { openStorage } from ${JSON.stringify(new URL('../../src/storage/registry.ts', import.meta.url).href)}
    const signal = new AbortController().signal
    process.setgid(65534); process.setuid(65534)
    const storage = await openStorage('local', { base_path: ${JSON.stringify(join(base, 'closed'))} }, { log: silentLog(), parallelUploads: 1, retryFor: 0 })
    const code = async (work) => { try { await work() } catch (error) { return error.code } }
    const source = async function* () { yield Buffer.from('x') }
    console.log(JSON.stringify([
      await code(() => storage.write('new', source(), { signal })), await code(async () => { for await (const _ of storage.read('key', { signal })) break }),
      await code(() => storage.remove('key', { signal })), (await storage.probe({ signal })).map(({ outcome }) => outcome),
    ]))`
  const { stdout, stderr } = spawnSync(process.execPath, [...process.execArgv, '--input-type=module', '-e', script], { encoding: 'utf8', cwd: fileURLToPath(new URL('../..', import.meta.url)) })
  c.strictSame(JSON.parse(stdout || JSON.stringify(stderr)), ['storage.denied', 'storage.denied', 'storage.denied', ['ok', 'denied', 'skipped', 'ok', 'skipped']])
})

await t.test('files and folders are for their owner only', async (c) => {
  const base = join(dir, 'modes', 'backups')
  const before = process.umask(0)
  c.teardown(() => process.umask(before))
  await (await open(base)).write('a/b/key', bytes(1, 10), { signal })
  for (const [path, mode] of [['a/b/key', 0o600], ['a/b', 0o700], ['a', 0o700], ['', 0o700], ['.backupd-partial', 0o700]] as const) {
    c.equal((await stat(join(base, path))).mode & 0o777, mode, path)
  }
})

await t.test('removing the last object of a folder removes the folder, but never the base', async (c) => {
  const base = join(dir, 'empty')
  const storage = await open(base)
  await storage.write('a/b/c/key', bytes(1, 1), { signal })
  await storage.write('a/other', bytes(1, 1), { signal })
  await storage.remove('a/b/c/key', { signal })
  c.strictSame(await readdir(join(base, 'a')), ['other'])
  await storage.remove('a/other', { signal })
  c.strictSame(await readdir(base), ['.backupd-partial'])
  await c.rejects(storage.write('a/b', (async function* () { yield Buffer.from('x'); throw new Error('broken') })(), { signal }))
  c.strictSame(await readdir(base), ['.backupd-partial'], 'a failed write leaves no folder')
  const rounds = Array.from({ length: 200 }, (_, index) => index)
  await inParallel(rounds, 8, async (index) => {
    const key = `shared/folder/${index % 5}`
    if (index % 2 === 0) await storage.write(key, bytes(index, 10), { signal })
    else await storage.remove(key, { signal })
  })
  for (const key of await keysOf(storage)) c.equal((await collect(storage.read(key, { signal }))).length, 10)
})

await t.test('what a key cannot be', async (c) => {
  const storage = await open(join(dir, 'kinds'))
  await storage.write('file', bytes(1, 1), { signal })
  await storage.write('folder/file', bytes(1, 1), { signal })
  await c.rejects(storage.write('file/below', bytes(1, 1), { signal }), { code: 'storage.key_invalid' })
  await c.rejects(storage.write('folder', bytes(1, 1), { signal }), { code: 'storage.key_invalid' })
  c.equal(await storage.stat('file/below', { signal }), undefined)
  await storage.remove('file/below', { signal })
  await symlink('/etc/passwd', join(dir, 'kinds', 'link'))
  c.strictSame(await keysOf(storage), ['file', 'folder/file'], 'a link is no object')
})

await t.test('sweeping goes by age, and reports what it cannot remove', async (c) => {
  const base = join(dir, 'sweep')
  const storage = await open(base)
  const partials = join(base, '.backupd-partial')
  await mkdir(join(partials, 'a-folder'), { recursive: true })
  await writeFile(join(partials, 'old'), 'x')
  await writeFile(join(partials, 'young'), 'x')
  const yesterday = new Date(Date.now() - 2 * 86_400_000)
  for (const name of ['old', 'a-folder']) await utimes(join(partials, name), yesterday, yesterday)
  const report = await storage.sweep({ signal, olderThan: new Date(Date.now() - 86_400_000) })
  c.strictSame(report.removed, ['.backupd-partial/old'])
  c.match(report.remaining, [{ key: '.backupd-partial/a-folder', reason: /EISDIR|EPERM|illegal/ }])
  c.strictSame((await readdir(partials)).sort(), ['a-folder', 'young'])
})

await t.test('a folder that the file system will not make is refused, and not tried for ever', { skip: process.platform !== 'linux' && 'there is no /proc' }, async (c) => {
  const storage = await open('/proc/backupd/folder')
  await c.rejects(storage.write('object', bytes(1, 10), { signal }), { code: /^storage\./ })
})
