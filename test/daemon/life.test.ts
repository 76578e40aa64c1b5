import { createServer } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { startPostgres } from '../support/postgres-server.js'
import { tempDir } from '../support/temp.js'
import { daemonWorld, eventually, slow, startDaemon } from './daemons.js'

t.test('starts before the catalog can be reached, and stays while it is away', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  await server.kill9()
  const daemon = startDaemon(t, { BACKUPD_STATE_DIR: tempDir(t), BACKUPD_DATABASE_URL: server.url() })
  await daemon.said('the catalog cannot be reached, trying again')
  t.strictSame([(await daemon.get('/livez')).status, (await daemon.get('/readyz')).status], [200, 503])
  t.match(JSON.parse((await daemon.get('/health')).text), { status: 'warning', checks: [{ name: 'catalog', status: 'warning' }, { name: 'scheduler', status: 'healthy' }] })
  t.match((await daemon.get('/metrics')).text, 'backupd_catalog_up 0')
  await server.start()
  await daemon.said('ready')
  await eventually('readyz', async () => (await daemon.get('/readyz')).status === 200)

  await server.kill9()
  await eventually('not ready', async () => (await daemon.get('/readyz')).status === 503)
  t.equal((await daemon.get('/livez')).status, 200)
  await server.start()
  await daemon.said('the catalog is back')
  await eventually('ready again', async () => (await daemon.get('/readyz')).status === 200)
  t.equal(await daemon.end(), 0)
  t.strictSame(daemon.log.filter((line) => line['level'] === 'error'), [])
})

t.test('ends at once while it waits for the catalog', async (t) => {
  const daemon = startDaemon(t, { BACKUPD_STATE_DIR: tempDir(t), BACKUPD_DATABASE_URL: 'postgres://nobody:x@127.0.0.1:1/none' })
  await daemon.said('the catalog cannot be reached, trying again')
  const began = performance.now()
  t.equal(await daemon.end('SIGINT'), 0)
  t.ok(performance.now() - began < 3_000)
})

t.test('what waiting does not cure ends it', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1')
  t.teardown(() => taken.close())
  await new Promise((resolve) => taken.once('listening', resolve))
  const { port } = taken.address() as { port: number }
  const second = startDaemon(t, { BACKUPD_STATE_DIR: tempDir(t), BACKUPD_DATABASE_URL: 'postgres://nobody:x@127.0.0.1:1/none', BACKUPD_LISTEN: `127.0.0.1:${port}` })
  t.equal(await eventually('its end', async () => second.child.exitCode ?? undefined), 4)

  const server = await startPostgres()
  t.teardown(() => server.stop())
  const locked = startDaemon(t, { BACKUPD_STATE_DIR: tempDir(t), BACKUPD_DATABASE_URL: server.url('postgres', 'postgres', 'wrong') })
  t.equal(await eventually('its end', async () => locked.child.exitCode ?? undefined), 4)
})

t.test('a run that the clock starts, a drain that waits, one that cuts, and a user in a hurry', async (t) => {
  const world = await daemonWorld(t)
  const daemon = world.daemon({ BACKUPD_DRAIN_TIMEOUT: '60' })
  await daemon.said('ready')
  const quick = await world.insertSchedule('quick', '* * * * * *', { cron_expression: `'*/2 * * * * *'` })
  const began = Date.now()
  await eventually('two runs by the clock', async () => Number((await world.rows(`SELECT count(*) AS n FROM backup_executions WHERE status = 'completed' AND triggered_by = 'schedule'`))[0]?.['n']) >= 2)
  t.ok(Date.now() - began < 20_000, 'a schedule that was added by plain SQL is followed within a tick')
  await world.rows(`UPDATE backup_schedules SET is_active = false WHERE id = ${quick}`)
  await eventually('switched off', async () => (await world.rows(`SELECT 1 FROM backup_schedules WHERE next_run_at IS NULL`)).length === 1)
  t.match((await world.rows(`SELECT total_runs = successful_runs AS same, failed_runs, last_status FROM backup_schedules`)), [{ same: true, failed_runs: 0, last_status: 'completed' }])
  t.match((await world.rows(`SELECT total_backups = (SELECT count(*) FROM backup_executions WHERE status = 'completed') AS same FROM storage_backend_configs`)), [{ same: true }])

  // 4 MB at 4 Mbit/s: a few seconds, which a drain waits for.
  const id = await world.insertSchedule('long', '0 3 1 1 *', { ...slow, bandwidth_limit_mbps: '40', next_run_at: 'now()' })
  const running = `SELECT id FROM backup_executions WHERE schedule_id = ${id} AND status = 'running'`
  await eventually('it runs', async () => (await world.rows(running)).length === 1)
  t.equal(await daemon.end(), 0)
  t.match(await world.rows(`SELECT status FROM backup_executions WHERE schedule_id = ${id}`), [{ status: 'completed' }], 'it was let finish')
  t.strictSame(await world.rows(`SELECT id FROM backup_workers`), [])

  await world.rows(`UPDATE backup_schedules SET next_run_at = now(), bandwidth_limit_mbps = 1 WHERE id = ${id}`)
  const second = world.daemon({ BACKUPD_DRAIN_TIMEOUT: '1' })
  await eventually('it runs', async () => (await world.rows(running)).length === 1)
  const cut = performance.now()
  t.equal(await second.end(), 0)
  t.ok(performance.now() - cut < 20_000)
  t.match(await world.rows(`SELECT status, error_details ->> 'code' AS code, attempt FROM backup_executions WHERE schedule_id = ${id} ORDER BY id OFFSET 1`),
    [{ status: 'failed', code: 'daemon.stopped', attempt: 1 }, { status: 'pending', attempt: 2 }], 'and it is not lost')

  const third = world.daemon({ BACKUPD_DRAIN_TIMEOUT: '3600' })
  await eventually('the next daemon takes it up', async () => (await world.rows(running)).length === 1)
  third.child.kill('SIGTERM')
  await third.said('waiting for running work to finish')
  await wait(500)
  t.equal(third.child.exitCode, null, 'it waits')
  t.match(await third.get('/readyz'), { status: 503 })
  t.equal(await third.end('SIGTERM'), 0, 'the second signal ends it')
  t.match(await world.rows(`SELECT status, attempt FROM backup_executions WHERE schedule_id = ${id} ORDER BY id OFFSET 2`), [{ status: 'failed', attempt: 2 }, { status: 'pending', attempt: 3 }])
  const folders = new Set(world.objects().filter((path) => !path.startsWith('.')).map((path) => path.split('/')[0]))
  const good = await world.rows(`SELECT backup_id FROM backup_executions WHERE status = 'completed'`)
  t.strictSame([...folders].sort(), good.map((row) => String(row['backup_id'])).sort(), 'nothing half-made is left')
})
