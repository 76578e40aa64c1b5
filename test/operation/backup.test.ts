import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { compressionTypes } from '../../src/compression/codec.js'
import { createHardDatabase } from '../fixtures/hard-database.js'
import { databaseContent } from '../support/content.js'
import { createWorld, fileHash, storedManifest, type ShownExecution } from './world.js'

t.test('a backup goes there and back with every codec, encrypted or not', async (t) => {
  const world = await createWorld(t)
  const before = await databaseContent(world.server.url('shop'))
  for (const compression of compressionTypes) {
    for (const encrypt of [true, false]) {
      const name = `${compression}-${encrypt ? 'age' : 'plain'}`
      await world.ok(['schedule', 'add', name, '--cron', '@daily', '--storage', 'disk', '--compression', compression, ...(encrypt ? [] : ['--no-encrypt'])])
      const shown = (await world.ok(['run-now', name, '--json'])).json<ShownExecution>()
      t.match(shown, {
        status: 'completed', verification_status: 'verified', included_components: ['globals', 'database', 'index'], error_message: null, error_details: null, warnings: [],
        backup_config: { schedule: name, source: 'default', storage: 'disk', compression_type: compression, encrypt_backup: encrypt },
      }, name)
      const manifest = storedManifest(world, shown.backup_id)
      const text = readFileSync(join(world.storageDir, shown.backup_id, 'manifest.json'))
      t.equal(createHash('sha256').update(text).digest('hex'), shown.checksum, 'the checksum is that of the manifest')
      t.equal(shown.verification_checksum, shown.checksum)
      t.equal(shown.execution_metadata['manifest'], text.toString('utf8'))
      t.equal(manifest.recipients.length, encrypt ? 1 : 0)
      t.equal(shown.encryption_key_hash, encrypt ? createHash('sha256').update(manifest.recipients.join('\n')).digest('hex') : null)
      for (const part of manifest.parts) t.equal(await fileHash(join(world.storageDir, part.key)), part.sha256, part.key)
      t.equal(shown.size_bytes, manifest.parts.reduce((sum, part) => sum + part.plain_size, 0))
      t.equal(shown.compressed_size_bytes, manifest.parts.reduce((sum, part) => sum + part.stored_size, 0))
      t.equal(shown.compression_ratio.toFixed(6), (shown.size_bytes / shown.compressed_size_bytes).toFixed(6))
      t.notMatch(text.toString(), /customers|empty_one/, 'the manifest names no table')

      const target = `back_${compression}_${encrypt ? 'age' : 'plain'}`
      const recovery = (await world.ok(['restore', `latest:${name}`, '--into', target, '--json'])).json<Record<string, unknown>>()
      t.match(recovery, { status: 'completed', recovery_type: 'full_restore', validation_performed: true, validation_passed: true, backup_execution_id: shown.id })
      t.same((recovery['status_history'] as { status: string }[]).map(({ status }) => status), ['pending', 'preparing', 'downloading', 'restoring', 'validating', 'completed'])
      t.same(await databaseContent(world.server.url(target)), before, `${name} comes back the same`)
    }
  }
})

t.test('a database made to be hard comes back through the program, with several jobs too', async (t) => {
  const world = await createWorld(t)
  await createHardDatabase((database) => world.server.url(database), 'hard')
  const env = { BACKUPD_SOURCE_URL: world.server.url('hard') }
  await world.ok(['schedule', 'add', 'hard', '--cron', '@daily', '--storage', 'disk', '--compression', 'zstd'])
  const shown = (await world.ok(['run-now', 'hard', '--json'], { env })).json<ShownExecution>()
  t.equal(shown.verification_status, 'verified')
  const before = await databaseContent(world.server.url('hard'))
  for (const jobs of ['1', '3']) {
    await world.ok(['restore', String(shown.id), '--into', `hard_back_${jobs}`, '--jobs', jobs], { env })
    t.same(await databaseContent(world.server.url(`hard_back_${jobs}`)), before, `${jobs} jobs`)
  }
})

t.test('types of backup, patterns, and a role with few rights', async (t) => {
  const world = await createWorld(t)
  const add = (name: string, ...rest: string[]) => world.ok(['schedule', 'add', name, '--cron', '@daily', '--storage', 'disk', ...rest])
  const take = async (name: string, env = {}): Promise<ShownExecution> => (await world.ok(['run-now', name, '--json'], { env })).json<ShownExecution>()

  await add('only', '--type', 'database_only')
  t.same((await take('only')).included_components, ['database', 'index'], 'database_only has no globals')
  await add('schema', '--type', 'configuration')
  const schema = await take('schema')
  t.same(schema.included_components, ['globals', 'database', 'index'])
  await world.ok(['restore', String(schema.id), '--into', 'schema_back'])
  t.same(await world.sql('schema_back', 'SELECT count(*)::int AS n FROM customers'), [{ n: 0 }], 'configuration has no rows')

  await add('some', '--include', 'public.c*', '--include', 'nothing_like_this')
  const some = await take('some')
  t.match(some.warnings.join('\n'), /nothing_like_this/, 'a pattern that matches nothing is a warning')
  await world.ok(['restore', String(some.id), '--into', 'some_back'])
  t.same((await world.sql('some_back', "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).map((row) => row['tablename']), ['customers'])

  await add('without', '--exclude', 'orders')
  const without = await take('without')
  await world.ok(['restore', String(without.id), '--into', 'without_back'])
  t.same((await world.sql('without_back', "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")).map((row) => row['tablename']), ['customers', 'empty_one'])

  await world.sql('postgres', "CREATE ROLE modest LOGIN PASSWORD 'modest-Password-1'; GRANT pg_read_all_data TO modest")
  const modest = { BACKUPD_SOURCE_URL: world.server.url('shop', 'modest', 'modest-Password-1') }
  await add('modest', '--no-verify')
  const refused = await world.run(['run-now', 'modest', '--json'], { env: modest })
  t.equal(refused.code, 4, 'large objects of others cannot be read')
  t.match(refused.json<{ error: { code: string } }>(), { error: { code: 'dump.failed' } })
  await world.sql('shop', 'SELECT lo_unlink(4711)')
  const few = await take('modest', modest)
  t.match(few.warnings.join('\n'), /passwords/, 'globals without passwords, and a warning')
  t.equal(few.verification_status, 'skipped')
  t.notMatch(world.printed.join('\n'), /modest-Password-1/)
})

t.test('a bandwidth limit is held', async (t) => {
  const world = await createWorld(t)
  await world.sql('shop', 'CREATE TABLE noise AS SELECT i, (SELECT string_agg(sha256((i || \' \' || j)::bytea), NULL) FROM generate_series(1, 1000) j) AS b FROM generate_series(1, 220) i')
  await world.ok(['schedule', 'add', 'slow', '--cron', '@daily', '--storage', 'disk', '--compression', 'none', '--no-verify', '--bandwidth', '16'])
  const started = performance.now()
  const shown = (await world.ok(['run-now', 'slow', '--json'])).json<ShownExecution>()
  const seconds = (performance.now() - started) / 1000
  const least = (shown.compressed_size_bytes * 8) / 16e6
  t.ok(least > 3, `there is something to measure: ${least.toFixed(1)} s`)
  t.ok(seconds >= least * 0.9, `${seconds.toFixed(1)} s is no faster than 16 Mbit/s, which take ${least.toFixed(1)} s`)
  t.ok(shown.duration_seconds <= least * 1.1 + 3, `${shown.duration_seconds} s is not much slower either`)
})
