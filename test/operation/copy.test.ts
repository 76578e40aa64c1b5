import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { databaseContent } from '../support/content.js'
import { freePort } from '../servers/process.js'
import { tempDir, type Teardown } from '../support/temp.js'
import { createWorld, type ShownExecution, type World } from './world.js'

interface ShownCopy extends ShownExecution {
  copy_of: number | null
  schedule_id: number | null
  triggered_by: string
  retry_of: number | null
}

interface Failure {
  error: { code: string; message: string; hint?: string }
}

const filesBelow = (dir: string): Record<string, string> => {
  if (!statSync(dir, { throwIfNoEntry: false })?.isDirectory()) return {}
  const names = readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter((name) => statSync(join(dir, name)).isFile()).sort()
  return Object.fromEntries(names.map((name) => [name, createHash('sha256').update(readFileSync(join(dir, name))).digest('hex')]))
}

/** Adds a second local storage, and gives its folder. */
const secondStorage = async (t: Teardown, world: World, name = 'vault'): Promise<string> => {
  const dir = join(tempDir(t, 'second'), 'backups')
  await world.ok(['storage', 'add', name, '--type', 'local', '--set', `base_path=${dir}`])
  return dir
}

const schedule = (world: World, name: string, ...rest: string[]) => world.ok(['schedule', 'add', name, '--cron', '@daily', '--storage', 'disk', ...rest])
const take = async (world: World, name: string): Promise<ShownCopy> => (await world.ok(['run-now', name, '--json'])).json<ShownCopy>()
const show = async (world: World, reference: string | number): Promise<ShownCopy> => (await world.ok(['show', String(reference), '--json'])).json<ShownCopy>()
const listed = async (world: World): Promise<ShownCopy[]> => (await world.ok(['list', '--json'])).json<ShownCopy[]>()

/** Data that no codec makes smaller. */
const noise = (world: World, rows: number) =>
  world.sql('shop', `CREATE TABLE noise AS SELECT i, (SELECT string_agg(sha256((i || ' ' || j)::bytea), NULL) FROM generate_series(1, 1000) j) AS b FROM generate_series(1, ${rows}) i`)

t.test('a copy is a backup of its own, byte by byte the same', async (t) => {
  const world = await createWorld(t)
  const vault = await secondStorage(t, world)
  await schedule(world, 'shop')
  const original = await take(world, 'shop')
  const before = await databaseContent(world.server.url('shop'))

  const copy = (await world.ok(['copy', 'latest:shop', '--to', 'vault', '--json'])).json<ShownCopy>()
  t.match(copy, {
    status: 'completed', verification_status: 'verified', copy_of: original.id, triggered_by: 'manual', error_message: null,
    size_bytes: original.size_bytes, compressed_size_bytes: original.compressed_size_bytes, compression_ratio: original.compression_ratio,
    included_components: original.included_components, checksum: original.checksum, verification_checksum: original.checksum, encryption_key_hash: original.encryption_key_hash,
    storage_location: `file://${vault}/${original.backup_id}`,
    backup_config: { storage: 'vault', storage_type: 'local', source: 'default', schedule: 'shop', copy_of: original.backup_id },
    execution_metadata: { stored_as: original.backup_id, manifest: original.execution_metadata['manifest'] },
  })
  t.not(copy.backup_id, original.backup_id)
  t.same(filesBelow(vault), filesBelow(world.storageDir), 'the objects are the same')
  t.same(await show(world, original.id), original, 'nothing has changed about the original')
  const schedules = (await world.ok(['schedule', 'list', '--json'])).json<Record<string, unknown>[]>()
  t.match(schedules[0], { total_runs: 1, successful_runs: 1, failed_runs: 0 }, 'a copy is no run of the schedule')
  t.equal((await show(world, 'latest:shop')).id, original.id, 'and not its latest')

  rmSync(world.storageDir, { recursive: true })
  for (const reference of [copy.backup_id, String(copy.id)]) {
    for (const level of ['checksum', 'archive']) await world.ok(['verify', reference, '--level', level])
  }
  await world.ok(['restore', copy.backup_id, '--into', 'from_copy'])
  t.same(await databaseContent(world.server.url('from_copy')), before, 'it restores without the original')

  const third = await secondStorage(t, world, 'third')
  const second = (await world.ok(['copy', String(copy.id), '--to', 'third', '--no-verify', '--json'])).json<ShownCopy>()
  t.match(second, { status: 'completed', verification_status: 'skipped', copy_of: copy.id, execution_metadata: { stored_as: original.backup_id } }, 'a copy can be copied')
  t.same(filesBelow(third), filesBelow(vault))

  writeFileSync(join(third, original.backup_id, 'globals.sql.zst.age'), 'other bytes')
  const damaged = await world.run(['verify', second.backup_id, '--json'])
  t.equal(damaged.code, 5, 'what is wrong with a copy is found')
  const again = (await world.ok(['copy', String(copy.id), '--to', 'third', '--json'])).json<ShownCopy>()
  t.equal(again.verification_status, 'verified', 'and a good one takes its place')
  t.same(filesBelow(third), filesBelow(vault))
  t.match(await show(world, second.id), { status: 'failed', error_message: new RegExp(`execution ${again.id} took its place`) })

  const events = await world.sql('catalog', "SELECT event_type, status FROM backup_audit_logs WHERE event_type LIKE 'copy.%' ORDER BY id")
  t.same(events.map(({ event_type }) => event_type), ['copy.requested', 'copy.completed', 'copy.requested', 'copy.completed', 'copy.requested', 'copy.completed'])
  await world.ok(['audit', 'verify'])
})

t.test('copies that make no sense are refused, and nothing is touched', async (t) => {
  const world = await createWorld(t)
  const vault = await secondStorage(t, world)
  await world.ok(['storage', 'add', 'alias', '--type', 'local', '--set', `base_path=${world.storageDir}`])
  await schedule(world, 'shop')
  const original = await take(world, 'shop')
  const before = filesBelow(world.storageDir)
  const refused = async (args: string[], exit: number, code: string): Promise<void> => {
    const result = await world.run(['copy', ...args, '--json'])
    t.equal(result.code, exit, `${args.join(' ')}: exit code`)
    t.equal(result.json<Failure>().error.code, code, `${args.join(' ')}: code`)
  }
  await refused([String(original.id), '--to', 'disk'], 2, 'copy.same_storage')
  await refused([String(original.id), '--to', 'nowhere'], 3, 'storage.unknown')
  await refused(['4711', '--to', 'vault'], 3, 'execution.not_found')
  await refused([String(original.id), '--to', 'alias'], 1, 'copy.exists')
  t.same(filesBelow(world.storageDir), before, 'two storages that are the same place: the original is left alone')
  t.match(await show(world, original.id), { status: 'completed', warnings: [/alias/] })
  await world.ok(['verify', String(original.id)])
  await world.ok(['storage', 'disable', 'vault'])
  await refused([String(original.id), '--to', 'vault'], 4, 'storage.disabled')
  await world.ok(['storage', 'enable', 'vault'])

  await world.ok(['copy', String(original.id), '--to', 'vault'])
  const copied = filesBelow(vault)
  await refused([String(original.id), '--to', 'vault'], 1, 'copy.exists')
  t.same(filesBelow(vault), copied)

  const failed = await world.run(['run-now', 'shop', '--json'], { env: { BACKUPD_SOURCE_URL: world.server.url('nothing_there') } })
  t.not(failed.code, 0)
  const [row] = await listed(world)
  await refused([String(row?.id), '--to', 'vault'], 1, 'copy.not_good')

  // Somebody else's backup in a folder of that name, unknown to this catalog.
  const other = await secondStorage(t, world, 'other')
  mkdirSync(join(other, original.backup_id), { recursive: true })
  writeFileSync(join(other, original.backup_id, 'manifest.json'), '{}')
  await refused([String(original.id), '--to', 'other'], 1, 'copy.exists')
  t.equal(readFileSync(join(other, original.backup_id, 'manifest.json'), 'utf8'), '{}', 'it stays as it was')
})

t.test('a copy that fails leaves nothing, and the original good', async (t) => {
  const world = await createWorld(t)
  await schedule(world, 'shop')
  const original = await take(world, 'shop')
  const folder = join(world.storageDir, original.backup_id)
  const part = join(folder, 'database.dump.zst.age')
  const intact = readFileSync(part)
  let round = 0

  const fails = async (what: string, exit: number, code: string, prepare: (vault: string) => void, heal: () => void): Promise<void> => {
    const name = `vault${(round += 1)}`
    const vault = await secondStorage(t, world, name)
    prepare(vault)
    const result = await world.run(['copy', String(original.id), '--to', name, '--json'])
    heal()
    t.equal(result.code, exit, `${what}: exit code\n${result.stderr}`)
    t.equal(result.json<Failure>().error.code, code, what)
    t.same(filesBelow(vault), {}, `${what}: nothing is left`)
    const [row] = await listed(world)
    t.match(row, { copy_of: original.id, status: 'failed', error_details: { code } }, what)
    const after = await show(world, original.id)
    t.equal(after.status, 'completed', `${what}: the original is good`)
    t.match(after.warnings.at(-1), new RegExp(`the copy to storage ${name} \\(execution ${row?.id}\\) ended as failed: `))
    await world.ok(['verify', String(original.id)])
    if (!statSync(vault, { throwIfNoEntry: false })?.isFile()) await world.ok(['copy', String(original.id), '--to', name])
  }

  const flipped = Buffer.from(intact)
  flipped[flipped.length - 1] = (flipped.at(-1) ?? 0) ^ 1
  await fails('the last byte of the original is another', 5, 'integrity.damaged', () => writeFileSync(part, flipped), () => writeFileSync(part, intact))
  await fails('the original is cut off', 5, 'integrity.damaged', () => writeFileSync(part, intact.subarray(0, 100)), () => writeFileSync(part, intact))
  await fails('the storage cannot be written to', 1, 'storage.key_invalid', (vault) => writeFileSync(vault, 'a file'), () => undefined)
  const manifest = readFileSync(join(folder, 'manifest.json'))
  await fails('the manifest is another', 5, 'integrity.damaged', () => writeFileSync(join(folder, 'manifest.json'), `${manifest.toString()} `), () => writeFileSync(join(folder, 'manifest.json'), manifest))
})

t.test('a copy that is cancelled leaves nothing', async (t) => {
  const world = await createWorld(t)
  const vault = await secondStorage(t, world)
  await noise(world, 200)
  await schedule(world, 'slow', '--compression', 'none')
  const original = await take(world, 'slow')
  await world.sql('catalog', 'UPDATE backup_schedules SET bandwidth_limit_mbps = 4')
  const stop = new AbortController()
  const running = world.run(['copy', String(original.id), '--to', 'vault', '--json'], { signal: stop.signal })
  for (const until = Date.now() + 20_000; !(await listed(world)).some(({ status }) => status === 'running') && Date.now() < until; ) await sleep(50)
  await sleep(1_000)
  stop.abort()
  const result = await running
  t.equal(result.code, 1)
  t.equal(result.json<Failure>().error.code, 'cancelled')
  t.match((await listed(world))[0], { copy_of: original.id, status: 'cancelled' })
  t.same(filesBelow(vault), {})
})

t.test('a schedule with copy_to copies each backup; when that fails the backup is good all the same', async (t) => {
  const world = await createWorld(t)
  const vault = await secondStorage(t, world)
  await schedule(world, 'shop', '--copy-to', 'vault')
  const original = await take(world, 'shop')
  const [copy] = await listed(world)
  t.match(copy, { copy_of: original.id, schedule_id: original.schedule_id, status: 'completed', verification_status: 'verified', triggered_by: 'manual' })
  t.same(filesBelow(vault), filesBelow(world.storageDir))

  rmSync(vault, { recursive: true })
  writeFileSync(vault, 'in the way')
  const second = await take(world, 'shop')
  t.match(second, { status: 'completed', warnings: [/the copy to storage vault \(execution \d+\) ended as failed/] })
  t.match((await listed(world))[0], { copy_of: second.id, status: 'failed' })
  t.match((await world.ok(['schedule', 'list', '--json'])).json<Record<string, unknown>[]>()[0], { total_runs: 2, successful_runs: 2, failed_runs: 0, last_status: 'completed' })
  const health = (await world.run(['status', '--json'])).json<{ schedules: { last_error: string | null }[] }>()
  t.equal(health.schedules[0]?.last_error, null)
})

t.test('a daemon makes the copies, and clears up after one that was killed', async (t) => {
  const world = await createWorld(t)
  const vault = await secondStorage(t, world)
  await noise(world, 100)
  await schedule(world, 'shop', '--copy-to', 'vault', '--compression', 'none')
  const env = { BACKUPD_LISTEN: `127.0.0.1:${await freePort()}` }
  const stop = new AbortController()
  const daemon = world.run(['daemon'], { env, signal: stop.signal })
  const until = async (what: string, test: () => Promise<boolean>): Promise<void> => {
    for (const end = Date.now() + 60_000; !(await test()); await sleep(100)) if (Date.now() > end) throw new Error(`not in time: ${what}`)
  }
  await until('the daemon is up', async () => (await world.sql('postgres', "SELECT 1 FROM pg_database WHERE datname = 'catalog'")).length > 0 &&
    (await world.sql('catalog', "SELECT 1 FROM backup_workers WHERE kind = 'daemon'")).length > 0)
  const original = await take(world, 'shop')
  await until('the copy is made', async () => (await listed(world)).some((row) => row.copy_of === original.id && row.status === 'completed'))
  t.same(filesBelow(vault), filesBelow(world.storageDir))

  await secondStorage(t, world, 'other')
  const asked = (await world.ok(['copy', String(original.id), '--to', 'other', '--json'])).json<ShownCopy>()
  t.match(asked, { status: 'completed', verification_status: 'verified' })
  t.match(await world.sql('catalog', `SELECT worker_id = (SELECT id FROM backup_workers WHERE kind = 'daemon') AS by_daemon FROM backup_executions WHERE id = ${asked.id}`), [{ by_daemon: true }])

  // A copy whose worker is gone: its row is made to look like that, and its folder holds a part.
  const lost = await secondStorage(t, world, 'lost')
  const leave = async (attempt: number): Promise<number> => {
    const [row] = await world.sql('catalog', `INSERT INTO backup_executions (backup_id, copy_of, schedule_id, storage_backend_id, backup_type, triggered_by, status, started_at, included_components, attempt, worker_id, lease_expires_at, storage_location, execution_metadata)
      SELECT backup_id || '-copy-aaaaa' || (SELECT count(*) FROM backup_executions), id, schedule_id, (SELECT id FROM storage_backend_configs WHERE name = 'lost'), backup_type, 'manual', 'running', now(), '[]', ${attempt}, 'gone', now() - interval '1 hour', 'file:///', jsonb_build_object('stored_as', backup_id)
      FROM backup_executions WHERE id = ${original.id} RETURNING id`)
    return Number(row?.['id'])
  }
  mkdirSync(join(lost, original.backup_id), { recursive: true })
  writeFileSync(join(lost, original.backup_id, 'globals.sql.age'), 'half')
  const first = await leave(9)
  await until('the lost copy is ended', async () => (await show(world, first)).status === 'failed')
  await until('what it stored is removed', () => Promise.resolve(Object.keys(filesBelow(lost)).length === 0))
  t.match((await show(world, original.id)).warnings.join('\n'), new RegExp(`the copy to storage lost \\(execution ${first}\\) ended as failed`))

  const tried = await leave(1)
  await until('the lost copy is tried again', async () => (await world.sql('catalog', `UPDATE backup_executions SET not_before = now() WHERE retry_of = ${tried} RETURNING id`)).length > 0)
  await until('the second attempt is good', async () => (await listed(world)).some((row) => row.copy_of === original.id && row.retry_of === tried && row.status === 'completed'))
  t.same(filesBelow(lost), filesBelow(world.storageDir))
  const second = await leave(9)
  await until('the second lost copy is ended', async () => (await show(world, second)).status === 'failed')
  await sleep(1_000)
  t.same(filesBelow(lost), filesBelow(world.storageDir), 'what a good copy holds is not removed with a lost one')

  stop.abort()
  t.equal((await daemon).code, 0)
})
