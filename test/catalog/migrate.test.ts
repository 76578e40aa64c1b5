import { spawn } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { connectTo } from '../../src/catalog/client.js'
import { migrateDown } from '../../src/catalog/migrate-down.js'
import { migrate, migrationStatus } from '../../src/catalog/migrate.js'
import { exitCodeOf } from '../../src/errors.js'
import { silentLog } from '../../src/log.js'
import { Secret } from '../../src/secret.js'
import { tempDir } from '../support/temp.js'
import { applicationDdl, applicationRows, applicationTables, stages, type Stage } from './application.js'
import { databaseOn, never, serverFor } from './server.js'
import { rowsOf, shapeOf } from './shape.js'

const log = silentLog()
const options = { signal: never, log }
const all = ['0000_shared_tables', '0001_backupd', '0002_operations', '0003_audit_guard']
const server = await serverFor(t)

t.test('an empty database gets the shared tables exactly', async (t) => {
  const { url, sql } = await databaseOn(t, server)
  const before = await migrationStatus(url)
  t.strictSame([before.applied, before.pending, before.adopted], [[], all, false])
  const status = await migrate(url, options)
  t.strictSame(status.applied.map(({ tag }) => tag), all)
  t.strictSame([status.pending, status.adopted, status.unknown], [[], false, []])

  const shape = await shapeOf(sql)
  for (const { name, columns, indexes } of applicationTables) {
    for (const column of columns) {
      const type = column.type === 'serial' ? 'integer' : column.type
      const fallback = column.type === 'serial' ? `nextval('${name}_id_seq'::regclass)`
        : column.default === undefined ? '-'
        : column.default.startsWith("'") ? `${column.default}::character varying`
        : column.default === '[]' || column.default === '{}' ? `'${column.default}'::jsonb` : column.default
      t.ok(shape.columns.includes(`${name}.${column.name}: ${type} ${column.nullable ? 'NULL' : 'NOT NULL'} ${fallback}`), `${name}.${column.name}`)
      if (column.references !== undefined) {
        const action = column.onDelete === undefined ? '' : ' ON DELETE CASCADE'
        t.ok(shape.foreignKeys.includes(`${name}: FOREIGN KEY (${column.name}) REFERENCES ${column.references}(id)${action}`), `${name}.${column.name}`)
      }
    }
    for (const index of indexes) {
      const unique = index.unique ? 'UNIQUE ' : ''
      t.ok(shape.indexes.includes(`CREATE ${unique}INDEX ${index.name} ON public.${name} USING btree (${index.columns.join(', ')})`), index.name)
    }
  }
  t.ok(shape.columns.includes('users.id: integer NOT NULL -'))
})

t.test('tables of the application are adopted with their rows', async (t) => {
  const empty = await databaseOn(t, server)
  await migrate(empty.url, options)
  const expected = await shapeOf(empty.sql, { sameJson: true })
  const outside = /^(users|projects)\.(?!id:)|ON public\.users USING btree \(email\)|^projects: |^projects\.id/
  for (const stage of Object.keys(stages) as Stage[]) {
    t.test(stage, async (t) => {
      const { url, sql } = await databaseOn(t, server, applicationDdl(stage))
      await sql.unsafe(applicationRows(stage))
      const tables = applicationTables.filter(({ name }) => stages[stage].includes(name))
      const content = () => Promise.all([
        ...tables.map(({ name, columns }) => rowsOf(sql, name, columns.map((column) => column.name))),
        rowsOf(sql, 'users', ['id', 'email', 'settings']), rowsOf(sql, 'projects', ['id', 'title', 'owner_id']),
      ])
      const before = await content()
      t.strictSame(before.map((rows) => rows.length), [...tables.map(() => 2), 1, 1])
      const types = (await shapeOf(sql)).columns.map((line) => line.split(' ').slice(0, 2).join(' '))

      const status = await migrate(url, options)
      t.ok(status.adopted)
      t.strictSame([...status.applied[0]?.adopted ?? []].sort(), [...stages[stage], 'users', 'projects'].sort())
      t.strictSame(await content(), before, 'every row as it was')
      const shape = await shapeOf(sql, { sameJson: true })
      t.strictSame(shape.columns.filter((line) => !outside.test(line)), expected.columns.filter((line) => !outside.test(line)))
      t.strictSame(shape.indexes.filter((line) => !outside.test(line)), expected.indexes)
      t.strictSame(shape.foreignKeys.filter((line) => !outside.test(line)), expected.foreignKeys)
      const now = new Set((await shapeOf(sql)).columns.map((line) => line.split(' ').slice(0, 2).join(' ')))
      t.strictSame(types.filter((type) => !now.has(type)), [], 'no type changed')

      const first = await shapeOf(sql)
      await migrate(url, options)
      t.strictSame(await shapeOf(sql), first, 'a second run changes nothing')
      t.strictSame(await content(), before)
      await sql`INSERT INTO storage_backend_configs (name, backend_type, config_data, is_active, is_healthy, total_backups, total_size_bytes)
        VALUES ('more', 'local', '{}', true, true, 0, 0)`
    })
  }
})

t.test('what makes adoption hard', async (t) => {
  t.test('index names on something else, foreign keys of another name, orphans, ids without a default', async (t) => {
    const { url, sql } = await databaseOn(t, server, applicationDdl('ten'))
    await sql.unsafe(`
      CREATE TABLE elsewhere (a integer); CREATE INDEX ix_meilisearch_usage_logs_key_id ON elsewhere (a);
      DROP INDEX ix_backup_schedules_name; CREATE TABLE ix_backup_schedules_name (a integer);
      ALTER TABLE backup_schedules RENAME CONSTRAINT backup_schedules_storage_backend_id_fkey TO fk_of_mine;
      ALTER TABLE audit_logs DROP CONSTRAINT audit_logs_user_id_fkey;
      ALTER TABLE audit_logs ADD CONSTRAINT audit_logs_user_id_fkey CHECK (user_id <> 0);
      ALTER TABLE recovery_executions DROP CONSTRAINT recovery_executions_trigger_user_id_fkey;
      ALTER TABLE backup_health_checks ALTER COLUMN id DROP DEFAULT; DROP SEQUENCE backup_health_checks_id_seq;
      ALTER TABLE backup_health_checks DROP COLUMN status;`)
    await sql.unsafe(`
      INSERT INTO recovery_executions (recovery_id, source_backup_id, recovery_type, restore_target, target_system, status, triggered_by,
        trigger_user_id, started_at, restore_components, restored_components, validation_performed)
      VALUES ('r', 's', 'full_restore', 'x', 'y', 'completed', 'manual', 4711, now(), '[]', '[]', false);
      INSERT INTO backup_health_checks (id, check_id, check_type, checked_at) VALUES (41, 'c', 'storage', now())`)
    await migrate(url, options)
    const { indexes, foreignKeys, columns } = await shapeOf(sql)
    t.ok(indexes.includes('CREATE INDEX backupd_ix_meilisearch_usage_logs_key_id ON public.meilisearch_usage_logs USING btree (key_id)'))
    t.ok(indexes.includes('CREATE INDEX ix_meilisearch_usage_logs_key_id ON public.elsewhere USING btree (a)'))
    t.ok(indexes.includes('CREATE INDEX backupd_ix_backup_schedules_name ON public.backup_schedules USING btree (name)'))
    t.equal(foreignKeys.filter((line) => line.startsWith('backup_schedules: FOREIGN KEY (storage_backend_id)')).length, 1)
    t.ok(foreignKeys.includes('audit_logs: FOREIGN KEY (user_id) REFERENCES users(id)'))
    t.ok(foreignKeys.includes('recovery_executions: FOREIGN KEY (trigger_user_id) REFERENCES users(id) NOT VALID'))
    t.ok(columns.some((line) => line.startsWith('backup_health_checks.status: character varying(50) NULL')))
    const [row] = await sql`INSERT INTO backup_health_checks (check_id, check_type, checked_at) VALUES ('d', 'storage', now()) RETURNING id`
    t.equal(row?.['id'], 42)
  })

  t.test('a schema of its own, with an awkward name, while public holds tables of the same names', async (t) => {
    const { url, sql, name } = await databaseOn(t, server, applicationDdl('twelve'))
    const untouched = await shapeOf(sql)
    await sql.unsafe(`CREATE SCHEMA "My ""own"" Schema"; ALTER DATABASE ${name} SET search_path = 'My "own" Schema', public`)
    await migrate(url, options)
    t.strictSame(await shapeOf(sql), untouched)
    const fresh = connectTo(url, 1)
    t.teardown(() => fresh.end())
    t.equal((await fresh`SELECT count(*) AS n FROM pg_tables WHERE schemaname = 'My "own" Schema'`)[0]?.['n'], 21)
  })
})

t.test('five processes at once, on an empty database and on one of the application', async (t) => {
  const script = `
    const { migrate } = await import(${JSON.stringify(fileURLToPath(new URL('../../src/catalog/migrate.ts', import.meta.url)))})
    const { Secret } = await import(${JSON.stringify(fileURLToPath(new URL('../../src/secret.ts', import.meta.url)))})
    const { silentLog } = await import(${JSON.stringify(fileURLToPath(new URL('../../src/log.ts', import.meta.url)))})
    const status = await migrate(new Secret(process.env.URL_TO_MIGRATE), { signal: new AbortController().signal, log: silentLog() })
    console.log(JSON.stringify(status.applied.map(({ tag }) => tag)))`
  const one = await databaseOn(t, server)
  await migrate(one.url, options)
  const expected = await shapeOf(one.sql)
  const run = (url: Secret): Promise<string> => new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...process.execArgv, '--input-type=module', '-e', script], {
      env: { ...process.env, URL_TO_MIGRATE: url.reveal() }, stdio: ['ignore', 'pipe', 'inherit'],
    })
    let said = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => { said += text })
    child.once('error', reject).once('close', (code) => (code === 0 ? resolve(said.trim()) : reject(new Error(`exit code ${code}`))))
  })
  for (const ddl of ['', applicationDdl('nine')]) {
    const { url, sql } = await databaseOn(t, server, ddl)
    t.strictSame(await Promise.all([1, 2, 3, 4, 5].map(() => run(url))), Array.from({ length: 5 }, () => JSON.stringify(all)))
    t.equal((await sql`SELECT count(*) AS n FROM backupd_migrations`)[0]?.['n'], all.length)
    if (ddl === '') t.strictSame(await shapeOf(sql), expected)
  }
})

t.test('what is refused says why, with exit code 4', async (t) => {
  const refused = async (url: Secret, code: string, message: RegExp): Promise<void> => {
    const error = await migrate(url, options).then(() => undefined, (thrown: unknown) => thrown)
    t.match(error, { code, message, hint: String })
    t.equal(exitCodeOf(error), 4)
    t.notMatch(JSON.stringify(error) + String(error), server.password)
  }
  const { url, sql, name } = await databaseOn(t, server)
  await refused(new Secret(server.url('not_there')), 'catalog.no_database', /not_there/)
  await refused(new Secret(server.url(name, 'postgres', 'wrong')), 'catalog.auth', /password/)
  await refused(new Secret('postgres://postgres@127.0.0.1:1/x'), 'catalog.unreachable', /127\.0\.0\.1:1/)
  t.match(await migrate(new Secret('postgres://postgres@127.0.0.1:1/x'), options).catch((error: unknown) => error), { retryable: true })

  await sql.unsafe(`CREATE ROLE weak_${process.pid} LOGIN PASSWORD 'weak-password'`)
  await refused(new Secret(server.url(name, `weak_${process.pid}`, 'weak-password')), 'catalog.no_rights', /public/)
  const theirs = await databaseOn(t, server, applicationDdl('nine'))
  await theirs.sql.unsafe(`GRANT ALL ON SCHEMA public TO weak_${process.pid}`)
  await refused(new Secret(server.url(theirs.name, `weak_${process.pid}`, 'weak-password')), 'catalog.no_rights', /permission denied for table/)
  t.notOk((await theirs.sql`SELECT to_regclass('backup_sources') AS found`)[0]?.['found'])

  await migrate(url, options)
  await sql`INSERT INTO backupd_migrations (hash, created_at) VALUES ('0099_future', 9999999999999)`
  await refused(url, 'catalog.newer_schema', /0099_future/)
  const status = await migrationStatus(url)
  t.strictSame(status.unknown, ['0099_future'])
})

t.test('waiting for the lock can be given up', async (t) => {
  const { url } = await databaseOn(t, server)
  const holder = connectTo(url, 1)
  t.teardown(() => holder.end())
  await holder`SELECT pg_advisory_lock(${0x6261636b})`
  const controller = new AbortController()
  setTimeout(() => controller.abort(), 100)
  await t.rejects(migrate(url, { log, signal: controller.signal }), { code: 'cancelled' })
})

t.test('going down', async (t) => {
  const into = (folder: string) => ({ ...options, keep: { folder } })

  t.test('exports what is lost, keeps what was adopted, and can come back', async (t) => {
    const { url, sql } = await databaseOn(t, server, applicationDdl('twelve'))
    await sql.unsafe(applicationRows('twelve'))
    // A column that is there before ours of the same name.
    await sql`ALTER TABLE backup_executions ADD COLUMN pinned boolean NOT NULL DEFAULT true`
    await migrate(url, options)
    await sql.unsafe(`INSERT INTO backup_sources (name, connection, description) VALUES ('main', '{"url": "postgres://h/d"}', 'two lines,' || chr(10) || '"quoted"');
      UPDATE backup_schedules SET source_id = 1, jobs = 3, managed_by = 'file' WHERE id = 1`)
    const folder = join(tempDir(t), 'new', 'export')
    await t.rejects(migrateDown(url, 0, into(folder)), { code: 'catalog.adopted', kind: 'configuration' })
    const refusal = await migrateDown(url, 1, { ...options, keep: undefined }).then(() => undefined, (error: unknown) => error)
    t.match(refusal, { code: 'catalog.down_loses', message: /table backup_sources \(1 row\)/, hint: /--discard-data/ })
    t.match(refusal, { message: /columns hooks, managed_by of backup_schedules \(1 row\)/ })
    t.equal(exitCodeOf(refusal), 2)
    t.match(await migrateDown(url, 1, { ...options, keep: undefined, dryRun: true }), { reverted: all.slice(1).reverse(), files: [] })
    t.strictSame((await migrationStatus(url)).pending, [])

    const { reverted, files, lost } = await migrateDown(url, 1, into(folder))
    t.strictSame(reverted, all.slice(1).reverse())
    t.strictSame(files.map((file) => file.slice(folder.length + 1)).sort(), readdirSync(folder).sort())
    t.equal(files.length, lost.length)
    t.strictSame(files.map((file) => statSync(file).mode & 0o777), files.map(() => 0o600))
    const exported = (name: string): string => readFileSync(join(folder, name), 'utf8')
    t.match(exported('0001_backupd.backup_sources.csv'), 'id,name,connection,description,created_at,updated_at\n1,main,"{""url"": ""postgres://h/d""}","two lines,\n""quoted""",')
    t.equal(exported('0001_backupd.backup_schedules.columns.csv'), 'id,source_id,copy_to,compression_level,jobs,next_run_for\n1,1,,,3,\n')
    t.equal(exported('0002_operations.backup_schedules.columns.csv'), 'id,hooks,managed_by\n1,,file\n')
    t.equal((await sql`SELECT count(*) AS n FROM backup_schedules`)[0]?.['n'], 2)
    t.strictSame((await sql`SELECT pinned FROM backup_executions`).map((row) => row['pinned'] as unknown), [true, true], 'a column of theirs stays')
    t.equal((await sql`SELECT to_regclass('backup_sources') AS found`)[0]?.['found'], null)
    t.strictSame([...await sql`SELECT tgname FROM pg_trigger WHERE tgname LIKE 'backupd%' UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE 'backupd%'`], [])
    t.strictSame((await migrationStatus(url)).pending, all.slice(1))
    await migrate(url, options)
    await t.rejects(migrateDown(url, 1, into(folder)), { code: 'catalog.export', kind: 'configuration', message: /not empty; nothing was dropped/ }, 'never over an earlier export')
    writeFileSync(join(folder, '..', 'file'), '')
    await t.rejects(migrateDown(url, 1, into(join(folder, '..', 'file', 'x'))), { code: 'catalog.export' })
    t.strictSame((await migrationStatus(url)).pending, [], 'and then nothing is dropped')
  })

  t.test('what cannot be dropped leaves everything as it was, and no files', async (t) => {
    const { url, sql } = await databaseOn(t, server)
    await migrate(url, options)
    await sql`CREATE VIEW theirs AS SELECT name FROM backup_sources`
    const folder = tempDir(t)
    await t.rejects(migrateDown(url, 1, into(folder)), { code: 'catalog.failed', message: /depend/ })
    t.strictSame(readdirSync(folder), [])
    t.strictSame((await migrationStatus(url)).pending, [])
    await sql`SELECT pinned FROM backup_executions`
  })

  t.test('all the way where everything is ours', async (t) => {
    const { url, sql } = await databaseOn(t, server)
    await migrate(url, options)
    const folder = tempDir(t)
    mkdirSync(join(folder, 'x'))
    await migrateDown(url, 0, into(join(folder, 'x')))
    t.strictSame((await sql`SELECT tablename FROM pg_tables WHERE schemaname = 'public'`).map((row) => row['tablename'] as unknown), ['backupd_migrations'])
    await migrate(url, options)
    t.match(await migrateDown(url, 0, { ...options, keep: 'discard' }), { files: [] })
    t.strictSame((await migrationStatus(url)).applied, [])
    t.strictSame(await migrateDown(url, 0, { ...options, keep: undefined }), { reverted: [], files: [], lost: [] })
  })
})
