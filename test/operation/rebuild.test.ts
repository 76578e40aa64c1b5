import { createHash } from 'node:crypto'
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openCatalog } from '../../src/catalog/connect.js'
import { listExecutions, type Execution } from '../../src/catalog/executions.js'
import { readConfig } from '../../src/config.js'
import { silentLog } from '../../src/log.js'
import { listAudit } from '../../src/audit/audit.js'
import { verifyAudit } from '../../src/audit/verify.js'
import { newWorkerId, type Environment } from '../../src/operation/environment.js'
import { rebuildCatalog, type Rebuild } from '../../src/operation/rebuild.js'
import { needExecution } from '../../src/operation/request.js'
import { addStorage, needStorage } from '../../src/operation/settings/storages.js'
import { openStorage } from '../../src/storage/registry.js'
import { startGcsDouble } from '../servers/gcs-double.js'
import { databaseContent } from '../support/content.js'
import { tempDir } from '../support/temp.js'
import { createWorld, type ShownExecution, type World } from './world.js'

type Tap = Parameters<typeof createWorld>[0]

/** Every file with its digest and time of change: nothing in a storage is touched. */
const state = (dir: string): string[] =>
  readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter((name) => statSync(join(dir, name)).isFile()).sort()
    .map((name) => `${name} ${statSync(join(dir, name)).mtimeMs} ${createHash('sha256').update(readFileSync(join(dir, name))).digest('hex')}`)

/** A machine with an empty catalog and an empty state directory, and the environment in which the program finds them. */
const elsewhere = async (t: Tap, world: World, name: string): Promise<Environment & { variables: Record<string, string> }> => {
  await world.sql('postgres', `CREATE DATABASE ${name}`)
  const variables = { BACKUPD_DATABASE_URL: world.server.url(name), BACKUPD_STATE_DIR: tempDir(t, 'state') }
  const config = readConfig(variables)
  const signal = new AbortController().signal
  const catalog = await openCatalog({ databaseUrl: config.databaseUrl, stateDir: config.stateDir, log: silentLog(), signal })
  t.teardown(() => catalog.close())
  return { config, catalog, log: silentLog(), actor: { username: 'test', host: 'here' }, workerId: newWorkerId(), signal, variables }
}

const addLocal = (env: Environment, name: string, dir: string) => addStorage(env, { name, type: 'local', set: [`base_path=${dir}`] })
const rebuild = async (env: Environment, storage: string, dryRun = false): Promise<Rebuild> => rebuildCatalog(env, await needStorage(env.catalog.db, storage), { dryRun })
const plain = (row: Execution): unknown => JSON.parse(JSON.stringify(row))

const manifestOf = (id: string, more: Record<string, unknown> = {}): string => JSON.stringify({
  format_version: 1, backup_id: id, tool_version: '0.1.0', schedule: 'many', source: 'default', database: 'shop', server_version: '15.1', pg_dump_version: '15.1',
  started_at: '2026-01-01T00:00:00.000Z', completed_at: '2026-01-01T00:00:10.000Z', backup_type: 'database_only', compression: 'none', compression_level: null,
  recipients: [], parts: [{ key: `${id}/database.dump`, kind: 'database', plain_size: 4, stored_size: 4, sha256: createHash('sha256').update('dump').digest('hex'), frames: 0 }], ...more,
})
const idAt = (number: number): string => `${new Date(Date.UTC(2026, 0, 1) + number * 60_000).toISOString().replace(/[-:]|\.\d+/g, '')}-many-aaaaaa`

t.test('a lost catalog is found again in the storage: listed, verified, restored', async (t) => {
  const world = await createWorld(t)
  const vault = join(tempDir(t, 'vault'), 'backups')
  await world.ok(['storage', 'add', 'vault', '--type', 'local', '--set', `base_path=${vault}`])
  await world.ok(['schedule', 'add', 'nightly', '--cron', '@daily', '--storage', 'disk'])
  const first = (await world.ok(['run-now', 'nightly', '--json'])).json<ShownExecution>()
  const second = (await world.ok(['run-now', 'nightly', '--json'])).json<ShownExecution>()
  await world.ok(['copy', String(second.id), '--to', 'vault'])
  const before = await databaseContent(world.server.url('shop'))
  const [disk, kept] = [state(world.storageDir), state(vault)]

  const env = await elsewhere(t, world, 'second')
  const { db } = env.catalog
  await addLocal(env, 'disk', world.storageDir)
  await addLocal(env, 'vault', vault)
  t.match(await rebuild(env, 'disk', true), { known: 0, troubles: [], incomplete: 0, foreign: 0, recorded: { length: 2 } })
  t.strictSame(await listExecutions(db), [], 'a dry run records nothing')

  const printed = await world.ok(['catalog', 'rebuild', '--storage', 'disk'], { env: env.variables })
  t.match(printed.stdout, /nightly +default +completed/)
  t.match(printed.stdout, /2 backups recorded, 0 on record before\n$/)
  for (const [reference, original] of [['latest:nightly', second], [first.backup_id, first]] as const) {
    const row = plain(await needExecution(env, reference)) as Record<string, unknown>
    for (const column of ['backup_id', 'backup_type', 'started_at', 'size_bytes', 'compressed_size_bytes', 'compression_ratio', 'included_components', 'storage_location', 'checksum', 'encryption_key_hash']) {
      t.strictSame(row[column], (original as unknown as Record<string, unknown>)[column], `${reference}: ${column}`)
    }
    t.match(row, {
      status: 'completed', verification_status: 'pending', schedule_id: null, source_id: null, attempt: 1, triggered_by: 'disaster_recovery',
      backup_config: { schedule: 'nightly', source: 'default', storage: 'disk', compression_type: original.backup_config['compression_type'] },
      execution_metadata: { manifest: original.execution_metadata['manifest'], tool_version: '0.1.0' },
    })
  }
  t.match(await rebuild(env, 'disk'), { known: 2, recorded: [] }, 'a second one finds nothing more to do')
  const copies = await rebuild(env, 'vault')
  t.match(copies, { recorded: [{ copy_of: second.backup_id }] })
  t.match(await rebuild(env, 'vault'), { known: 1, recorded: [] })
  const copy = await needExecution(env, copies.recorded[0]?.backup_id ?? '')
  t.match(copy, { copy_of: (await needExecution(env, second.backup_id)).id, checksum: second.checksum, execution_metadata: { stored_as: second.backup_id } })
  t.equal((await needExecution(env, 'latest:nightly')).backup_id, second.backup_id, 'a copy is not the latest')
  t.match((await world.ok(['list', '--schedule', 'nightly', '--json'], { env: env.variables })).json(), { length: 3 })
  t.strictSame([state(world.storageDir), state(vault)], [disk, kept], 'nothing in the storages is changed')

  // Checking digests needs no key; opening does.
  t.match((await world.ok(['verify', 'latest:nightly', '--json'], { env: env.variables })).json(), { verification_status: 'verified' })
  t.match((await world.run(['restore', 'latest:nightly', '--to', world.server.url('without_key'), '--json'], { env: env.variables })).json(), { error: { code: 'key.identity_missing' } })
  cpSync(join(world.stateDir, 'identities'), join(env.config.stateDir, 'identities'), { recursive: true })
  await world.ok(['restore', 'latest:nightly', '--to', world.server.url('found')], { env: env.variables })
  t.same(await databaseContent(world.server.url('found')), before)
  await world.ok(['restore', copy.backup_id, '--to', world.server.url('from_copy')], { env: env.variables })
  t.same(await databaseContent(world.server.url('from_copy')), before)

  const entries = (await listAudit(db, { type: 'catalog.rebuilt' })).map(({ status, event_data }) => [status, (event_data as Record<string, unknown>)['recorded'], (event_data as Record<string, unknown>)['known']])
  t.strictSame(entries, [['success', 0, 1], ['success', 1, 0], ['success', 0, 2], ['success', 2, 0]], 'one entry each, none for a dry run')
  t.match(await verifyAudit(db), { ok: true })
  t.match([(await needStorage(db, 'disk')).total_backups, (await needStorage(db, 'vault')).total_backups], [2, 1])

  // A catalog that has some of them, and the schedule.
  await world.sql('catalog', `UPDATE backup_executions SET warnings = '["as it is"]'; DELETE FROM backup_executions WHERE id = ${second.id}`)
  const own = await elsewhere(t, world, 'third')
  const main: Environment = { ...own, catalog: await openCatalog({ databaseUrl: readConfig({ BACKUPD_DATABASE_URL: world.server.url('catalog') }).databaseUrl, stateDir: world.stateDir, log: silentLog(), signal: own.signal }) }
  t.teardown(() => main.catalog.close())
  const unchanged = plain(await needExecution(main, first.backup_id))
  t.match(await rebuild(main, 'disk'), { known: 1, recorded: [{ folder: second.backup_id, status: 'completed' }] })
  t.strictSame(plain(await needExecution(main, first.backup_id)), unchanged, 'a row that is there stays as it is')
  t.match(await needExecution(main, 'latest:nightly'), { backup_id: second.backup_id, schedule_id: 1 }, 'a backup of a schedule that is there is linked to it')
})

t.test('what is no backup to this program is told, and keeps no other from being found', async (t) => {
  const world = await createWorld(t, { encrypt: false })
  const dir = join(tempDir(t, 'odd'), 'backups')
  const put = (path: string, text: string): void => {
    mkdirSync(join(dir, path, '..'), { recursive: true })
    writeFileSync(join(dir, path), text)
  }
  const whole = (number: number, more: Record<string, unknown> = {}): string => {
    const id = idAt(number)
    put(`${id}/manifest.json`, manifestOf(id, more))
    put(`${id}/database.dump`, 'dump')
    return id
  }
  const good = [whole(1), whole(2)]
  const newer = whole(3, { format_version: 2, parts: 'of another shape' })
  const broken = whole(4)
  put(`${broken}/manifest.json`, '{ "format_version": 1, ')
  const wrong = whole(5, { backup_id: idAt(99) })
  const stray = whole(6, { parts: [{ key: '../outside', kind: 'database', plain_size: 4, stored_size: 4, sha256: '0'.repeat(64), frames: 0 }] })
  const odd = whole(7, { backup_type: 'a type that nobody knows' })
  const missing = whole(8)
  unlinkSync(join(dir, missing, 'database.dump'))
  const short = whole(9)
  put(`${short}/database.dump`, 'dum')
  put(`${idAt(10)}/database.dump`, 'of a run that never ended')
  put('holiday/photo.jpg', 'foreign')
  put('manifest.json', 'foreign')
  put('wordpress/manifest.json', '{}')
  put(`team/a/${idAt(11)}/manifest.json`, manifestOf(idAt(11)))
  put(`team/a/${idAt(11)}/database.dump`, 'dump')
  put(`${good[0]}/notes.txt`, 'somebody laid this here')
  const crm = whole(12, { database: 'crm', source: 'crm' })

  const env = await elsewhere(t, world, 'odd')
  await addLocal(env, 'odd', dir)
  const unchanged = state(dir)
  for (const dryRun of [true, false]) {
    const result = await rebuild(env, 'odd', dryRun)
    t.strictSame(result.recorded.map(({ folder, status }) => [folder, status]), [[good[0], 'completed'], [good[1], 'completed'], [missing, 'corrupted'], [short, 'corrupted'], [crm, 'completed']])
    t.match(result.troubles, [
      { folder: newer, kind: 'newer', code: 'repository.format_newer', reason: new RegExp(`${newer}/manifest.json has format version 2`) },
      { folder: broken, kind: 'invalid', code: 'repository.manifest_invalid', reason: /not JSON/ },
      { folder: wrong, kind: 'invalid', code: 'integrity.damaged', reason: new RegExp(`belongs to ${idAt(99)}`) },
      { folder: stray, kind: 'invalid', reason: /outside of its folder: \.\.\/outside/ },
      { folder: odd, kind: 'invalid', reason: /no backup type/ },
      { folder: missing, kind: 'damaged', reason: /database.dump: it is not in the storage/ },
      { folder: short, kind: 'damaged', reason: /3 bytes of 4/ },
    ])
    t.match(result, { incomplete: 1, foreign: 3, warnings: [/below team\/a\/ lies another repository with 1 backup/, /"many" are of several databases: shop of source default, crm of source crm/] })
  }
  const told = await world.run(['catalog', 'rebuild', '--storage', 'odd'], { env: env.variables })
  t.equal(told.code, 5, 'something is damaged')
  t.match(told.stderr, /holds 4 backups damaged, 1 backup of a newer format; all others are on record/)
  t.match(told.stdout, new RegExp(`newer: ${newer}: .*format version 2`))
  t.match(await needExecution(env, missing), { status: 'corrupted', verification_status: 'corrupted', error_details: { code: 'integrity.damaged' } })
  t.equal((await needExecution(env, 'latest:many')).backup_id, crm)
  t.strictSame(state(dir), unchanged)

  // What is only of a newer format is left to a newer program.
  const fresh = join(tempDir(t, 'newer'), 'backups')
  cpSync(join(dir, newer), join(fresh, newer), { recursive: true })
  await addLocal(env, 'newer', fresh)
  const future = await world.run(['catalog', 'rebuild', '--storage', 'newer', '--json'], { env: env.variables })
  t.equal(future.code, 1)
  t.match(future.json(), { recorded: [], troubles: [{ kind: 'newer', folder: newer }] })
  t.match(future.stderr, /1 backup of a newer format.*\n.*version of backupd that made them/)

  // The same name of a backup, and another backup: nothing is lost, and neither takes the place of the other.
  const double = join(tempDir(t, 'double'), 'backups')
  cpSync(join(dir, good[1] ?? ''), join(double, good[1] ?? ''), { recursive: true })
  writeFileSync(join(double, good[1] ?? '', 'manifest.json'), manifestOf(good[1] ?? '', { database: 'other' }))
  await addLocal(env, 'double', double)
  const twin = await rebuild(env, 'double')
  t.match(twin, { recorded: [{ folder: good[1], copy_of: null }], warnings: [/bears the backup_id of execution \d+ in another storage/] })
  t.not(twin.recorded[0]?.backup_id, good[1])
  t.match(await needExecution(env, twin.recorded[0]?.backup_id ?? ''), { execution_metadata: { stored_as: good[1] } })

  t.equal((await world.run(['catalog', 'rebuild', '--storage', 'nosuch'], { env: env.variables })).code, 3)
  t.equal((await world.run(['catalog', 'rebuild'], { env: env.variables })).code, 2)
  await t.rejects(needExecution(env, 'latest:nosuch'), { code: 'schedule.not_found', kind: 'notFound' })

  rmSync(dir, { recursive: true })
  t.match(await rebuild(env, 'odd'), { recorded: [], known: 0, warnings: [/nothing in this storage: compare its place/] })
})

t.test('more backups than a page of a listing holds, in an object store, and by two at a time', async (t) => {
  const world = await createWorld(t, { encrypt: false })
  const double = await startGcsDouble()
  t.teardown(() => double.stop())
  const config = { bucket_name: 'backups', api_endpoint: double.endpoint, prefix: 'repo' }
  const storage = await openStorage('gcs', config, { log: silentLog(), parallelUploads: 1, retryFor: 1000 })
  const signal = new AbortController().signal
  const put = (key: string, text: string) => storage.write(key, (async function* () { yield Buffer.from(text) })(), { signal })
  const COUNT = 550
  for (let at = 0; at < COUNT; at += 25) {
    await Promise.all(Array.from({ length: 25 }, (_, number) => idAt(at + number)).flatMap((id) => [put(`${id}/database.dump`, 'dump'), put(`${id}/manifest.json`, manifestOf(id))]))
  }
  await storage.close()
  const env = await elsewhere(t, world, 'far')
  await addStorage(env, { name: 'far', type: 'gcs', set: Object.entries(config).map(([key, value]) => `${key}=${value}`) })
  const results = await Promise.all([rebuild(env, 'far'), rebuild(env, 'far')])
  for (const { recorded, known, troubles } of results) t.strictSame([recorded.length + known, troubles], [COUNT, []])
  t.equal(results.reduce((sum, { recorded }) => sum + recorded.length, 0), COUNT, 'each is recorded once')
  t.strictSame(await world.sql('far', 'SELECT count(*)::int AS n, count(DISTINCT backup_id)::int AS ids FROM backup_executions'), [{ n: COUNT, ids: COUNT }])
  t.match(await needStorage(env.catalog.db, 'far'), { total_backups: COUNT, total_size_bytes: COUNT * 4 })
  double.requireToken('another')
  await t.rejects(rebuild(env, 'far'), { code: 'storage.auth' })
  t.match(await listAudit(env.catalog.db, { type: 'catalog.rebuilt', limit: 1 }), [{ status: 'failure', event_data: { code: 'storage.auth' } }])
})
