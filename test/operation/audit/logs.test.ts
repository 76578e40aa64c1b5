import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { canonicalRow } from '../../../src/audit/log-row.js'
import { describePublic, loadSigningKey, publicOf } from '../../../src/audit/signing-key.js'
import { verifyAudit } from '../../../src/audit/verify.js'
import { readLogs } from '../../../src/catalog/audit-logs.js'
import { insertKey } from '../../../src/catalog/keys.js'
import { insertStorage } from '../../../src/catalog/storages.js'
import { readConfig } from '../../../src/config.js'
import { generateIdentity } from '../../../src/encryption/keys.js'
import { silentLog } from '../../../src/log.js'
import { archiveLogs } from '../../../src/operation/audit/archive.js'
import { signLogs, verifyLogs } from '../../../src/operation/audit/logs.js'
import { newWorkerId, type Environment } from '../../../src/operation/environment.js'
import { applicationDdl } from '../../catalog/application.js'
import { catalogOn, never, serverFor } from '../../catalog/server.js'
import { eventually, startDaemon } from '../../daemon/daemons.js'
import { runCli } from '../../support/cli.js'
import { tempDir, type Teardown } from '../../support/temp.js'

const server = await serverFor(t)

/** A catalog in which the other application has written `rows` rows, every other one of them past its time, and a storage `cold`. */
const world = async (t: Teardown, { rows = 20, ddl = '', env: more = {} }: { rows?: number; ddl?: string; env?: Record<string, string> } = {}) => {
  const catalog = await catalogOn(t, server, ddl)
  const stateDir = tempDir(t, 'state')
  const folder = join(tempDir(t, 'cold'), 'store')
  await insertStorage(catalog.db, { name: 'cold', backend_type: 'local', config_data: { base_path: folder } })
  await catalog.sql.unsafe(`INSERT INTO audit_logs (action, resource_type, category, severity, success, affected_count, request_body, memory_usage_mb, created_at, retention_until,
      sensitive_data_accessed, gdpr_relevant, sox_relevant, hipaa_relevant, encrypted, archived)
    SELECT 'login', 'user', 'authentication', 'medium', true, 0, json_build_object('b', i / 3.0, 'ä', E'line\\n"x"')::json, i / 7.0, now() - interval '2 years' + i * interval '1.000001 second',
      CASE WHEN i % 2 = 1 THEN now() - interval '1 day' + i * interval '1 second' WHEN i % 4 = 2 THEN now() + interval '1 day' END, false, false, false, false, false, false FROM generate_series(1, ${rows}) i`)
  const variables = { BACKUPD_STATE_DIR: stateDir, BACKUPD_DATABASE_URL: catalog.url.reveal(), ...more }
  const env: Environment = { config: readConfig(variables), catalog, log: silentLog(), actor: { username: 'ann', host: 'h' }, workerId: newWorkerId(), signal: never }
  const archives = (): string[] => (existsSync(join(folder, 'audit-archive')) ? readdirSync(join(folder, 'audit-archive')).sort() : [])
  const state = async (): Promise<string> =>
    (await catalog.sql<{ s: string }[]>`SELECT string_agg(id || CASE WHEN archived AND archived_at IS NOT NULL THEN 'a' ELSE '' END, ' ' ORDER BY id) AS s FROM audit_logs`)[0]?.s ?? ''
  return { env, catalog, folder, archives, state, variables, at: (name: string) => join(folder, 'audit-archive', name) }
}

const linesOf = (text: Buffer | string): { id: number }[] => text.toString().trim().split('\n').map((line) => JSON.parse(line) as { id: number })

for (const [kind, ddl] of [['jsonb', ''], ['json', applicationDdl('nine')]] as const) {
  t.test(`rows in ${kind} columns are signed, and a change shows`, async (t) => {
    const { env, catalog } = await world(t, { ddl })
    const key = await loadSigningKey(env.config)
    const verified = () => verifyLogs(env, publicOf(key), {})
    t.match(await verified(), { ok: true, unsigned: 20, signed: 0 })
    await catalog.sql`UPDATE audit_logs SET checksum = repeat('0', 64) WHERE id = 20`
    t.match(await signLogs(env, key, {}), { signed: 19, bad_count: 1, bad: [{ id: 20, reason: 'checksum' }] })
    await catalog.sql`UPDATE audit_logs SET checksum = NULL WHERE id = 20`
    t.match(await signLogs(env, key, {}), { signed: 1, bad_count: 0 })
    t.match(await signLogs(env, key, {}), { signed: 0 })
    t.match(await verified(), { ok: true, signed: 20, unsigned: 0 })
    t.match(await catalog.sql`SELECT max(length(checksum)) AS c, max(length(signature)) AS s FROM audit_logs`, [{ c: 64, s: 88 }])
    await catalog.sql`UPDATE audit_logs SET archived = true, archived_at = now() WHERE id = 1`
    t.match(await verified(), { ok: true }, 'archiving is no change')

    // With OpenSSL alone.
    const home = tempDir(t)
    for await (const [row] of readLogs(catalog.db, {}, 1)) {
      if (row === undefined) continue
      writeFileSync(join(home, 'row'), canonicalRow(row))
      writeFileSync(join(home, 'signature'), Buffer.from(String(row.signature), 'base64'))
      break
    }
    writeFileSync(join(home, 'key.pem'), describePublic(key).pem)
    t.match(execFileSync('openssl', ['pkeyutl', '-verify', '-pubin', '-inkey', 'key.pem', '-rawin', '-in', 'row', '-sigfile', 'signature'], { cwd: home, encoding: 'utf8' }), /Verified Successfully/)

    for (const [change, reason] of [
      [`success = false WHERE id = 3`, 'checksum'], [`created_at = created_at + interval '1 microsecond' WHERE id = 3`, 'checksum'],
      [`request_body = '{}' WHERE id = 3`, 'checksum'], [`signature = (SELECT signature FROM audit_logs WHERE id = 4) WHERE id = 3`, 'signature'],
      [`signature = 'x', checksum = NULL WHERE id = 3`, 'signature'],
    ] as const) {
      const [before] = await catalog.sql`SELECT row_to_json(a)::text AS row FROM audit_logs a WHERE id = 3`
      await catalog.sql.unsafe(`UPDATE audit_logs SET ${change}`)
      t.match(await verified(), { ok: false, bad_count: 1, bad: [{ id: 3, reason }] }, change)
      await catalog.sql`DELETE FROM audit_logs WHERE id = 3`
      await catalog.sql`INSERT INTO audit_logs SELECT * FROM json_populate_record(NULL::audit_logs, ${before?.['row'] as string}::text::json)`
      t.match(await verified(), { ok: true })
    }
    t.match(await verifyAudit(catalog.db), { ok: true, checked: 2 })
  })
}

t.test('rows past their time are archived, checked with stock tools, and only then marked', async (t) => {
  const { env, catalog, archives, state, at } = await world(t)
  t.match(await archiveLogs(env, { storage: 'cold', remove: false, dryRun: true }), { rows: 10, archives: [] })
  t.strictSame(archives(), [])
  const { rows, archives: made } = await archiveLogs(env, { storage: 'cold', remove: false, batch: 4 })
  t.equal(rows, 10)
  t.strictSame(made.map((archive) => [archive.rows, archive.first_id, archive.last_id]), [[4, 1, 7], [4, 9, 15], [2, 17, 19]])
  t.equal(await state(), '1a 2 3a 4 5a 6 7a 8 9a 10 11a 12 13a 14 15a 16 17a 18 19a 20')
  for (const name of archives().filter((one) => one.endsWith('.sha256'))) {
    t.match(execFileSync('sha256sum', ['-c', name], { cwd: at(''), encoding: 'utf8' }), /: OK/)
  }
  const plain = archives().filter((one) => one.endsWith('.jsonl.zst')).map((name) => execFileSync('zstd', ['-dc', at(name)]))
  const read = plain.flatMap(linesOf)
  t.strictSame(read.map(({ id }) => id).sort((a, b) => a - b), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19])
  t.match(read.find(({ id }) => id === 1), { request_body: { ä: 'line\n"x"' }, archived: false, created_at: /\.\d{6}\+00:00$/ })
  const events = await catalog.sql`SELECT event_data ->> 'sha256' AS sha256 FROM backup_audit_logs WHERE event_type = 'audit_logs.archived' ORDER BY id`
  t.strictSame(events.map((row) => row['sha256'] as unknown), made.map(({ sha256 }) => sha256))
  t.match(await archiveLogs(env, { storage: 'cold', remove: false }), { rows: 0, archives: [] })
  // Put back into a table, from the archive alone.
  await catalog.sql`CREATE TABLE restored (LIKE audit_logs)`
  for (const text of plain) for (const line of text.toString().trim().split('\n')) await catalog.sql`INSERT INTO restored SELECT * FROM json_populate_record(NULL::restored, ${line}::text::json)`
  t.match(await catalog.sql`SELECT count(*) AS n FROM restored r JOIN audit_logs a USING (id) WHERE r.created_at = a.created_at AND r.request_body = a.request_body`, [{ n: 10 }])
})

t.test('with keys archives are encrypted, and deleted rows are in one', async (t) => {
  const { env, catalog, archives, state, at } = await world(t)
  const { identity, recipient } = await generateIdentity()
  await insertKey(catalog.db, { name: 'k', recipient, fingerprint: createHash('sha256').update(recipient).digest('hex') })
  t.match(await archiveLogs(env, { storage: 'cold', remove: true }), { rows: 10, encrypted: true, deleted: true })
  t.equal(await state(), '2 4 6 8 10 12 14 16 18 20')
  const [name = ''] = archives()
  t.match(name, /\.jsonl\.zst\.age$/)
  const keyFile = join(tempDir(t), 'key.txt')
  writeFileSync(keyFile, identity.reveal(), { mode: 0o600 })
  const plain = execFileSync('zstd', ['-dc'], { input: execFileSync('age', ['-d', '-i', keyFile, at(name)]) })
  t.strictSame(linesOf(plain).map(({ id }) => id), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19])
})

t.test('two at once archive each row once', async (t) => {
  const { env, archives, at } = await world(t, { rows: 400 })
  const results = await Promise.all([1, 2, 3].map(() => archiveLogs(env, { storage: 'cold', remove: true, batch: 30 })))
  t.equal(results.reduce((sum, { rows }) => sum + rows, 0), 200)
  const ids = archives().filter((one) => one.endsWith('.zst')).flatMap((name) => linesOf(execFileSync('zstd', ['-dc', at(name)]))).map(({ id }) => id)
  t.equal(ids.length, 200)
  t.equal(new Set(ids).size, 200)
})

t.test('when the storage fails, no row is marked and nothing is left', async (t) => {
  const { env, state, archives, folder, catalog } = await world(t)
  const before = await state()
  mkdirSync(join(folder, '..', 'store'), { recursive: true })
  writeFileSync(join(folder, 'audit-archive'), 'a file where the folder should be')
  await t.rejects(archiveLogs(env, { storage: 'cold', remove: true }), { code: /^storage\./ })
  t.equal(await state(), before)
  await t.rejects(archiveLogs(env, { storage: 'none', remove: true }), { code: 'storage.unknown', kind: 'notFound' })
  await catalog.sql`UPDATE storage_backend_configs SET is_active = false`
  await t.rejects(archiveLogs(env, { storage: 'cold', remove: true }), { code: 'storage.disabled' })
  t.equal(await state(), before)
  t.throws(archives)
})

t.test('on the command line and by the daemon', async (t) => {
  const { variables, state, archives, catalog } = await world(t)
  const cli = (...args: string[]) => runCli(args, { env: variables })
  t.match(await cli('audit', 'logs', 'verify'), { code: 4, stderr: /--public-key/ })
  t.match(await cli('audit', 'logs', 'sign', '--json'), { code: 0 })
  const { stdout: pem } = await cli('audit', 'logs', 'key')
  t.match(pem, /^-----BEGIN PUBLIC KEY-----/)
  const file = join(tempDir(t), 'public.pem')
  writeFileSync(file, pem)
  await catalog.sql`UPDATE audit_logs SET category = 'other' WHERE id = 5`
  t.match(await cli('audit', 'logs', 'verify', '--public-key', file), { code: 5, stderr: /1 row of audit_logs was changed; the first: row 5/ })
  t.match(await cli('audit', 'archive', '--storage', 'cold', '--dry-run'), { code: 0, stdout: /10 rows/ })
  t.strictSame(archives(), [])
  const daemon = startDaemon(t, { ...variables, BACKUPD_AUDIT_ARCHIVE_STORAGE: 'cold', BACKUPD_AUDIT_ARCHIVE_DELETE: 'true', BACKUPD_LOG_LEVEL: 'info' })
  await daemon.said('audit_logs archived')
  t.equal(await eventually('rows deleted', async () => (await state()).startsWith('2 ') && state()), '2 4 6 8 10 12 14 16 18 20')
  t.equal(await daemon.end('SIGTERM'), 0)
})
