import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { eq, sql } from '../../src/catalog/drizzle.js'
import t, { type Test } from 'tap'
import type { Catalog } from '../../src/catalog/connect.js'
import { claimRound, lastRound, resultName, resultsOf, trimHealth, type RecordedCheck } from '../../src/catalog/health.js'
import { backupHealthChecks, backupNotifications, meilisearchSecurityEvents, storageBackendConfigs } from '../../src/catalog/schema.js'
import { registerWorker, removeWorker } from '../../src/catalog/workers.js'
import { readConfig } from '../../src/config.js'
import { lookAtEverything } from '../../src/daemon/checks.js'
import type { Check } from '../../src/health/check.js'
import { checks, runChecks } from '../../src/health/registry.js'
import { silentLog } from '../../src/log.js'
import type { Environment } from '../../src/operation/environment.js'
import { healthContext } from '../../src/operation/health.js'
import { healthRound, probingNow, scoreOf } from '../../src/operation/health-round.js'
import { applicationDdl } from '../catalog/application.js'
import { catalogOn, never, serverFor } from '../catalog/server.js'
import { tempDir } from '../support/temp.js'

const server = await serverFor(t)

const daemonOn = (t: Test, catalog: Catalog, name: string, more: Record<string, string> = {}): Environment => ({
  config: readConfig({ BACKUPD_STATE_DIR: tempDir(t), BACKUPD_DATABASE_URL: catalog.url.reveal(), ...more }),
  catalog, log: silentLog(), actor: { username: 'backupd', host: 'here' }, workerId: `${name}:1:x`, signal: never,
})
const live = (catalog: Catalog, { workerId }: Environment): Promise<void> =>
  registerWorker(catalog.db, { id: workerId, kind: 'daemon', host: 'here', pid: 1, version: '0', state: 'running' })
const lastResults = async (catalog: Catalog): Promise<RecordedCheck[]> => {
  const round = await lastRound(catalog.db)
  return round === undefined ? [] : resultsOf(catalog.db, round)
}
const named = async (catalog: Catalog, name: string): Promise<RecordedCheck | undefined> => (await lastResults(catalog)).find((one) => resultName(one) === name)
/** Lets the last round be `seconds` ago. */
const later = (catalog: Catalog, seconds = 300): Promise<unknown> =>
  catalog.db.update(backupHealthChecks).set({ checked_at: sql`checked_at - make_interval(secs => ${seconds})` })
const addStorage = async (catalog: Catalog, name: string, base_path: string): Promise<number> =>
  (await catalog.db.insert(storageBackendConfigs).values({ name, backend_type: 'local', config_data: { base_path } }).returning())[0]?.id ?? 0

t.test('two daemons write one set of results between them, and one goes on when the other is gone', async (t) => {
  const catalog = await catalogOn(t, server)
  const [a, b] = [daemonOn(t, catalog, 'a'), daemonOn(t, catalog, 'b')] as const
  await live(catalog, a)
  await live(catalog, b)
  const id = await addStorage(catalog, 'disk', join(tempDir(t), 'backups'))
  const entries = await Promise.all([lookAtEverything(a, catalog, 300), lookAtEverything(b, catalog, 300)])
  const rows = await catalog.db.select().from(backupHealthChecks).orderBy(backupHealthChecks.id)
  t.equal(rows.filter(({ target_type }) => target_type === 'round').length, 1)
  t.equal(new Set(rows.map(({ check_id }) => check_id)).size, rows.length)
  const results = await lastResults(catalog)
  t.strictSame(results.map(({ check }) => check).sort(), checks.map(({ name }) => name).sort(), 'each check once')
  t.match(await named(catalog, `storages:storage-${id}`), { type: 'storage', status: 'healthy', score: 1, metrics: { latency_ms: Number, probed_at: String, write: 'ok', remove: 'ok', free_bytes: Number } })
  t.match(await named(catalog, 'catalog'), { metrics: { size_bytes: Number, pending_migrations: 0, migration: String } })
  t.match(await named(catalog, 'clock'), { status: 'healthy', metrics: { offset_ms: Number } })
  t.match(rows.find(({ target_type }) => target_type === 'storage'), { check_id: new RegExp(`^backupd:storages:storage-${id}:`), target_id: id, check_duration_seconds: Number, issues_found: [], recommendations: [] })
  t.match(await catalog.db.select().from(storageBackendConfigs), [{ is_healthy: true, health_check_message: /wrote, read, listed and removed/, last_health_check: Date }])
  t.equal(entries.filter((list) => list.some(({ name }) => name === 'storages')).length >= 1, true)

  const [first, other] = rows.some(({ check_results: found }) => JSON.stringify(found).includes(a.workerId)) ? [a, b] : [b, a]
  const shown = await lookAtEverything(other, catalog, 300)
  t.match(shown.find(({ name }) => name === 'storages'), { status: 'healthy' }, 'the other shows what was found')
  t.match(shown.find(({ name }) => name === 'tools'), { status: 'healthy' })
  await later(catalog)
  t.equal(await claimRound(catalog.db, other.workerId, 300), undefined, 'who made the last goes on, as long as it lives')
  t.ok(await claimRound(catalog.db, first.workerId, 300))
  await later(catalog)
  await removeWorker(catalog.db, first.workerId)
  t.ok(await claimRound(catalog.db, other.workerId, 300))
  t.equal((await catalog.db.select().from(backupHealthChecks).where(eq(backupHealthChecks.status, 'error'))).length, 1, 'a round that was not finished shows')
})

t.test('a full disk, a storage that is gone and an overdue schedule are found in one round, and told of', async (t) => {
  const catalog = await catalogOn(t, server)
  const daemon = daemonOn(t, catalog, 'a')
  const point = join(tempDir(t), 'small')
  mkdirSync(point)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=128m', 'tmpfs', point])
  t.teardown(() => execFileSync('umount', [point]))
  const small = await addStorage(catalog, 'small', join(point, 'backups'))
  const gone = await addStorage(catalog, 'gone', '/proc/version')
  await catalog.db.execute(sql`INSERT INTO backup_notifiers (name, type, config) VALUES ('hook', 'webhook', '{"url": "http://127.0.0.1:1/"}')`)
  await catalog.db.execute(sql`INSERT INTO backup_schedules (name, cron_expression, backup_type, storage_backend_id, created_at, encrypt_backup) VALUES
    ('late', '0 * * * *', 'full', ${small}, now() - interval '1 day', false), ('never', '@yearly', 'full', ${small}, now(), false), ('busy', '0 * * * *', 'full', ${small}, now() - interval '1 day', false)`)
  await catalog.db.execute(sql`INSERT INTO backup_executions (backup_id, schedule_id, storage_backend_id, backup_type, triggered_by, status, started_at, scheduled_for, included_components)
    SELECT 'busy-now', id, storage_backend_id, 'full', 'schedule', 'running', now(), now(), '[]' FROM backup_schedules WHERE name = 'busy'`)
  t.ok(await healthRound(daemon, catalog, 300))
  t.match(await named(catalog, `storages:storage-${small}`), { status: 'healthy' })
  t.match(await named(catalog, `storages:storage-${gone}`), { status: 'critical', score: 0 })
  const late = (await lastResults(catalog)).filter(({ check }) => check === 'schedules').map(({ status, findings }) => [findings[0]?.subject, status])
  t.strictSame(late, [['schedule busy', 'healthy'], ['schedule late', 'critical'], ['schedule never', 'healthy']])
  const told = await catalog.db.select().from(backupNotifications)
  t.match(told.map(({ event, dedup_key: key }) => [event, key.replace(/\d+/, 'N')]).sort(), [['overdue', 'schedule:N:overdue:critical'], ['unhealthy', 'storage:N:unhealthy:critical']])

  execFileSync('dd', ['if=/dev/zero', `of=${join(point, 'fill')}`, 'bs=1M', 'status=none', 'count=64'])
  await later(catalog)
  t.ok(await healthRound(daemon, catalog, 300))
  t.match(await named(catalog, `storages:storage-${small}`), { status: 'critical', findings: [{}, { subject: 'disk of storage small', level: 'critical', message: /^\d+ MiB free/, advice: /Free some space/ }] })
  t.match(await catalog.db.select().from(storageBackendConfigs).where(eq(storageBackendConfigs.id, small)), [{ is_healthy: false, health_check_message: /disk of storage small/ }])
  t.throws(() => execFileSync('dd', ['if=/dev/zero', `of=${join(point, 'rest')}`, 'bs=1M', 'count=128'], { stdio: 'ignore' }))
  await later(catalog)
  t.ok(await healthRound(daemon, catalog, 300))
  t.match(await named(catalog, `storages:storage-${small}`), { status: 'critical' }, 'with no byte left')

  execFileSync('rm', [join(point, 'fill'), join(point, 'rest')])
  await later(catalog)
  t.ok(await healthRound(daemon, catalog, 300))
  t.match(await catalog.db.select().from(storageBackendConfigs).where(eq(storageBackendConfigs.id, small)), [{ is_healthy: true }])
  t.match(await catalog.db.select().from(backupNotifications).where(eq(backupNotifications.event, 'recovery')), [{ payload: { title: /storage small is well again/, storage: { id: small, name: 'small' } } }])
})

t.test('a check that throws, hangs, or cannot be recorded stops no other', async (t) => {
  const catalog = await catalogOn(t, server)
  const daemon = daemonOn(t, catalog, 'a')
  const of = (name: string, run: Check['run']): Check => ({ name, type: 'system', scope: 'shared', needsCatalog: false, run })
  const context = healthContext({ config: daemon.config, log: daemon.log, signal: never, catalog: () => Promise.resolve(catalog), thorough: false })
  const broken = [of('throws', () => Promise.reject(new Error('out of order'))), of('hangs', () => new Promise(() => undefined)), of('fine', () => Promise.resolve([{ subject: 'x', level: 'healthy', message: 'y' }]))]
  t.match(await runChecks(context, broken, 1), [
    { check: 'throws', broken: true, level: 'critical', findings: [{ message: 'out of order' }] }, { check: 'hangs', broken: true, findings: [{ message: 'no answer within 1 s' }] }, { check: 'fine', broken: false, level: 'healthy' },
  ])
  t.equal(scoreOf([{ level: 'critical' }], true), 0)
  t.equal(scoreOf([{ level: 'healthy' }, { level: 'healthy' }, { level: 'warning' }], false), 0.7)

  // What PostgreSQL says when its disk is full.
  await catalog.sql.unsafe(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON backup_health_checks FOR EACH ROW EXECUTE FUNCTION full_disk()`)
  const entries = await lookAtEverything(daemon, catalog, 300)
  t.match(entries.find(({ name }) => name === 'recording'), { status: 'critical', message: /No space left on device/ })
  t.match(entries.find(({ name }) => name === 'tools'), { status: 'healthy' })
  t.match(entries.find(({ name }) => name === 'schedules'), { status: 'healthy' })
})

t.test('search keys, and the other application\'s audit trail', async (t) => {
  const catalog = await catalogOn(t, server, applicationDdl('twelve'))
  const daemon = daemonOn(t, catalog, 'a', { BACKUPD_SEARCH_KEY_HOURLY_LIMIT: '5' })
  await catalog.sql.unsafe(`
    INSERT INTO projects (id, title) VALUES (1, 'p');
    INSERT INTO meilisearch_keys (id, project_id, key_uid, key_type, is_active, usage_count, expires_at, revoked_at) VALUES
      (1, 1, 'uid-1', 'public', true, 0, now() - interval '1 day', NULL), (2, 1, 'uid-2', 'tenant', true, 0, now() + interval '2 days', NULL),
      (3, 1, 'uid-3', 'tenant', true, 0, now() - interval '1 day', now()), (4, 1, 'uid-4', 'tenant', false, 0, now() - interval '1 day', NULL), (5, 1, 'uid-5', 'public', true, 0, NULL, NULL);
    INSERT INTO meilisearch_usage_logs (key_id, operation, index_name, success, created_at) SELECT 1, 'search', 'pages', true, now() - interval '10 minutes' FROM generate_series(1, 6);
    INSERT INTO meilisearch_usage_logs (key_id, operation, index_name, success, created_at) SELECT 2, 'search', 'pages', true, now() - n * interval '20 minutes' FROM generate_series(0, 7) n;
    INSERT INTO audit_logs (action, resource_type, category, severity, success, affected_count, sensitive_data_accessed, gdpr_relevant, sox_relevant, hipaa_relevant, encrypted, archived, created_at)
      SELECT 'a', 'b', 'c', s, true, 0, false, false, false, false, false, false, now() - i FROM (VALUES ('high', interval '1 hour'), ('critical', '2 hours'), ('critical', '25 hours'), ('low', '1 hour')) v (s, i)`)
  t.ok(await healthRound(daemon, catalog, 300))
  t.match(await named(catalog, 'search_keys'), { status: 'warning', findings: [{ message: 'expired and still active: 1; expire within 7 days: 2' }], metrics: { active: 3, expired: 1, expiring: 1 } })
  t.match(await named(catalog, 'search_usage'), { status: 'warning', findings: [{ message: 'over 5 in the last hour: key 1 6 times' }] })
  t.match(await named(catalog, 'admin_audit'), { status: 'warning', findings: [{ message: 'entries in its audit trail in 24 h: 1 critical and 1 high' }] })
  t.notMatch(JSON.stringify(await lastResults(catalog)), /meilisearch_|audit_logs|uid-1/, 'no names of tables, and no uid')
  const events = () => catalog.db.select().from(meilisearchSecurityEvents)
  t.match(await events(), [{ key_id: 1, event_type: 'usage_threshold_exceeded', severity: 'warning', automated: true, event_metadata: { uses: 6, limit: 5 } }])
  await later(catalog)
  t.ok(await healthRound(daemon, catalog, 300))
  t.equal((await events()).length, 1, 'once an hour')
  await catalog.db.update(meilisearchSecurityEvents).set({ created_at: sql`now() - interval '61 minutes'` })
  await later(catalog)
  t.ok(await healthRound(daemon, catalog, 300))
  t.equal((await events()).length, 2)
})

t.test('old results are removed, by age and by number, but not those of others', async (t) => {
  const catalog = await catalogOn(t, server)
  const insert = (id: string, age: string) => catalog.db.execute(sql`INSERT INTO backup_health_checks (check_id, check_type, status, checked_at) VALUES (${id}, 'system', 'healthy', now() - ${age}::interval)`)
  await insert('theirs', '400 days')
  await insert('backupd:tools:old', '8 days')
  for (const n of [1, 2, 3]) await insert(`backupd:tools:${n}`, '1 hour')
  const round = await claimRound(catalog.db, 'a:1:x', 300)
  t.ok(round)
  const left = async () => (await catalog.db.select().from(backupHealthChecks).orderBy(backupHealthChecks.id)).map(({ check_id: id }) => id.replace(/round:.*/, 'round'))
  if (round === undefined) return
  t.equal(await trimHealth(catalog.db, round), 1)
  t.strictSame(await left(), ['theirs', 'backupd:tools:1', 'backupd:tools:2', 'backupd:tools:3', 'backupd:round'])
  t.equal(await trimHealth(catalog.db, round, { rows: 2 }), 2)
  t.strictSame(await left(), ['theirs', 'backupd:tools:3', 'backupd:round'])
})

t.test('where a probe stays, there is one a day', async (t) => {
  const catalog = await catalogOn(t, server)
  const daemon = daemonOn(t, catalog, 'a')
  const id = await addStorage(catalog, 'disk', join(tempDir(t), 'backups'))
  t.ok(await healthRound(daemon, catalog, 300))
  const row = { id } as Parameters<Awaited<ReturnType<typeof probingNow>>>[0]
  t.strictSame((await probingNow(catalog.db))(row), { write: true })
  const told = (at: string) => catalog.sql.unsafe(`UPDATE backup_health_checks SET metrics = metrics || jsonb_build_object('remove', 'denied', 'probed_at', ${at}) WHERE target_type = 'storage'`)
  await told(`to_char(now() AT TIME ZONE 'UTC' - interval '23 hours', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`)
  t.match((await probingNow(catalog.db))(row), { write: false, seen: { remove: 'denied' } })
  await later(catalog)
  t.ok(await healthRound(daemon, catalog, 300))
  t.match(await named(catalog, `storages:storage-${id}`), { status: 'healthy', findings: [{ message: /answers$/ }], metrics: { remove: 'denied', probed_at: String } }, 'what was seen is kept')
  await told(`to_char(now() AT TIME ZONE 'UTC' - interval '25 hours', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`)
  t.strictSame((await probingNow(catalog.db))(row), { write: true })
})
