import { existsSync, readFileSync, statSync } from 'node:fs'
import t from 'tap'
import { hostname, userInfo } from 'node:os'
import { machineOn, serverFor, withStorageAndKey, type Failure } from './setup.js'

interface Row extends Record<string, unknown> { id: number; event_type: string }

const server = await serverFor(t)

t.test('every change is on record with who made it, and the trail can be taken along', async (t) => {
  const machine = await machineOn(t, server, { BACKUPD_SOURCE_URL: server.url() })
  const { cli } = machine
  await withStorageAndKey(machine)
  await cli(['schedule', 'add', 'nightly', '--cron', '@daily', '--storage', 'disk'])
  await cli(['schedule', 'disable', 'nightly'])
  await cli(['source', 'add', 'shop', '--url', 'postgres://u:p-w-secret@elsewhere/shop'])
  await cli(['source', 'remove', 'shop'])
  const rows = (await cli(['audit', 'list', '--json'])).json<Row[]>()
  t.strictSame(rows.map(({ event_type }) => event_type), ['source.removed', 'source.created', 'schedule.disabled', 'schedule.created', 'key.generated', 'storage.created'])
  for (const row of rows) t.match(row, { event_category: 'configuration', status: 'success', username: userInfo().username, event_data: { host: hostname() } })
  t.match(rows[2], { action: 'update', resource_type: 'schedule', resource_name: 'nightly', before_state: { is_active: true }, after_state: { is_active: false } })
  t.match(rows[1], { after_state: { name: 'shop', connection: { url: 'postgres://u@elsewhere:5432/shop', password: '[secret]' } } })
  t.equal((await cli(['audit', 'list', '--json', '--limit', '2'])).json<Row[]>().length, 2)
  t.strictSame((await cli(['audit', 'list', '--json', '--category', 'access'])).json(), [])
  t.match(await cli(['audit', 'list', '--category', 'other']), { code: 2 })
  t.match((await cli(['audit', 'list'])).stdout, /source\.removed +source shop +success/)

  const lines = (await cli(['audit', 'export'])).stdout.trim().split('\n').map((line) => JSON.parse(line) as Row)
  t.strictSame(lines, [...rows].reverse())
  t.strictSame((await cli(['audit', 'export', '--json'])).json(), lines)
  const file = machine.path('trail.jsonl')
  t.match((await cli(['audit', 'export', '--out', file, '--json'])).json(), { file, entries: 6 })
  t.equal(statSync(file).mode & 0o777, 0o600)
  t.strictSame(readFileSync(file, 'utf8').trim().split('\n').map((line) => JSON.parse(line) as Row), lines)
  t.match(await cli(['audit', 'export', '--out', file]), { code: 1, stderr: /is there already, and is not overwritten/ })
  t.match(await cli(['audit', 'export', '--format', 'csv', '--json']), { code: 2 })
  const csv = machine.path('trail.csv')
  t.match((await cli(['audit', 'export', '--format', 'csv', '--out', csv, '--resource', 'schedule:nightly', '--json'])).json(), { format: 'csv', entries: 2, masked: 0 })
  t.match(readFileSync(csv, 'utf8'), /^id,chain_seq,prev_hash,hash,audit_id,[^\n]*\r\n3,3,[0-9a-f]{64},[0-9a-f]{64},[^\n]*\r\n4,4,/)
  const filtered = async (...filter: string[]) => (await cli(['audit', 'list', '--json', ...filter])).json<Row[]>().map(({ id }) => id)
  t.strictSame(await filtered('--type', 'source.*', '--status', 'success'), [6, 5])
  t.strictSame(await filtered('--resource', 'storage', '--since', '1h', '--until', '2999-01-01'), [1])
  t.strictSame(await filtered('--user', 'nobody-of-that-name'), [])
  t.match(await cli(['audit', 'list', '--since', 'yesterday']), { code: 2, stderr: /12h/ })
  t.match(await cli(['audit', 'export', '--out', machine.path('no/such/folder')]), { code: 1 })
  t.notOk(existsSync(machine.path('no')))
  t.notMatch(machine.transcript(), 'p-w-secret')
})

t.test('an entry that was changed or removed is found, with exit code 5', async (t) => {
  const machine = await machineOn(t, server)
  const { cli } = machine
  for (const name of ['a', 'b', 'c']) await cli(['source', 'add', name, '--url', `postgres://elsewhere/${name}`])
  t.match((await cli(['audit', 'verify', '--json'])).json(), { ok: true, checked: 3 })
  t.match((await cli(['audit', 'verify'])).stdout, /is whole: 3 entries/)
  t.match(await machine.query(`UPDATE backup_audit_logs SET username = 'somebody' WHERE id = 2`).catch((error: unknown) => error), { message: /entry 2 of the audit trail of backupd cannot be changed/ })
  await machine.query(`ALTER TABLE backup_audit_logs DISABLE TRIGGER USER; UPDATE backup_audit_logs SET username = 'somebody' WHERE id = 2`)
  const changed = await cli(['audit', 'verify', '--json'])
  t.equal(changed.code, 5)
  t.match(changed.json(), { ok: false, checked: 1, broken: { reason: 'changed', id: 2, seq: 2 } })
  await machine.query('DELETE FROM backup_audit_logs WHERE id >= 2')
  const removed = await cli(['audit', 'verify'])
  t.match(removed, { code: 5, stderr: /tampered with: the newest 2 entries/ })
})

t.test('a change that fails leaves nothing but its record', async (t) => {
  const machine = await machineOn(t, server)
  await machine.cli(['source', 'add', 'a', '--url', 'postgres://elsewhere/a'])
  t.match((await machine.cli(['source', 'add', 'a', '--url', 'postgres://elsewhere/b', '--json'])).json<Failure>(), { error: { code: 'source.exists' } })
  const [row] = (await machine.cli(['audit', 'list', '--json'])).json<Row[]>()
  t.match(row, { event_type: 'source.created', status: 'failure', event_data: { code: 'source.exists' } })
  t.match(await machine.query('SELECT count(*)::int AS n FROM backup_sources'), [{ n: 1 }])
  t.match((await machine.cli(['audit', 'verify', '--json'])).json(), { ok: true, checked: 2 })
})

t.test('a trail whose end was cut off, with the record of it, is found by the manifests', async (t) => {
  const machine = await machineOn(t, server, { BACKUPD_SOURCE_URL: server.url() })
  const { cli, query } = machine
  await withStorageAndKey(machine)
  await cli(['schedule', 'add', 'nightly', '--cron', '@daily', '--storage', 'disk', '--no-verify'])
  t.match(await cli(['run-now', 'nightly']), { code: 0 })
  const [{ id, manifest } = { id: '', manifest: '' }] = await query(`SELECT backup_id AS id, execution_metadata ->> 'manifest' AS manifest FROM backup_executions`)
  const { audit_head: head } = JSON.parse(String(manifest)) as { audit_head: { seq: number; hash: string; chain: string } }
  t.match(await query(`SELECT hash FROM backup_audit_logs WHERE chain_seq = ${head.seq}`), [{ hash: head.hash }])
  t.match((await cli(['audit', 'verify', '--storage', 'disk', '--json'])).json(), { ok: true, anchors: 2, manifests: 2, chain: head.chain })
  t.match(await cli(['audit', 'verify', '--storage', 'nowhere']), { code: 3 })

  const cut = head.seq - 1
  await query(`ALTER TABLE backup_audit_logs DISABLE TRIGGER USER; DELETE FROM backup_audit_logs WHERE chain_seq > ${cut};
    UPDATE backup_audit_chain SET seq = ${cut}, hash = (SELECT hash FROM backup_audit_logs WHERE chain_seq = ${cut})`)
  const missed = await cli(['audit', 'verify', '--json'])
  t.equal(missed.code, 5)
  t.match(missed.json(), { broken: { reason: 'removed', seq: head.seq, backup_id: id } })
  // Without the catalog's own copies, only the storage tells.
  await query('DELETE FROM backup_executions')
  t.match(await cli(['audit', 'verify']), { code: 0 })
  t.match(await cli(['audit', 'verify', '--storage', 'disk']), { code: 5, stderr: new RegExp(`entry ${head.seq} .*the manifest of backup ${String(id)}`) })
})
