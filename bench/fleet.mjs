// Many daemons on one catalog and many schedules due within a minute, with an operation that does nothing in place of a backup.
// Usage: node bench/fleet.mjs [SCHEDULES [DAEMONS [SECONDS]]]
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { startServer } from './server.mjs'

const [schedules = 1_000, daemons = 20, spread = 60] = process.argv.slice(2).map(Number)
const dist = resolve(process.env.BENCH_DIST ?? 'dist')
const state = mkdtempSync(join(tmpdir(), 'backupd-fleet-'))
const server = await startServer({ max_connections: 40 + daemons * 9, shared_preload_libraries: 'pg_stat_statements' })
const children = []
const program = new URL('daemon-process.mjs', import.meta.url).pathname
try {
  await server.query('postgres', 'CREATE DATABASE catalog')
  await server.query('postgres', 'CREATE EXTENSION pg_stat_statements')
  const env = { PATH: process.env.PATH, BACKUPD_STATE_DIR: state, BACKUPD_DATABASE_URL: server.url('catalog'), BACKUPD_LISTEN: '127.0.0.1:0', BACKUPD_LOG_LEVEL: 'info' }
  const start = () => new Promise((ready) => {
    const child = spawn(process.execPath, [program, dist, '{"trivial": true}'], { env, stdio: ['ignore', 'pipe', 'inherit'] })
    children.push(child)
    child.stdout.on('data', (block) => block.toString().includes('"ready"') && ready())
  })
  await start()
  await Promise.all(Array.from({ length: daemons - 1 }, start))
  await server.query('catalog', `INSERT INTO storage_backend_configs (name, backend_type, config_data) VALUES ('disk', 'local', '{"base_path": "/nonexistent"}')`)
  await wait(5_000)
  await server.query('postgres', 'SELECT pg_stat_statements_reset()')
  await server.query('catalog', `INSERT INTO backup_schedules (name, cron_expression, backup_type, storage_backend_id, next_run_at)
    SELECT 'schedule ' || i, '0 2 1 1 *', 'full', 1, clock_timestamp() + interval '5 seconds' + make_interval(secs => ${spread} * i / ${schedules}.0) FROM generate_series(1, ${schedules}) i`)
  const count = async (condition) => Number((await server.query('catalog', `SELECT count(*) AS n FROM backup_executions WHERE ${condition}`))[0].n)
  for (const until = Date.now() + (spread + 120) * 1000; (await count(`status = 'completed'`)) < schedules && Date.now() < until; ) await wait(1_000)

  const [result] = await server.query('catalog', `
    SELECT count(*)::integer AS executions, count(DISTINCT schedule_id)::integer AS schedules, count(DISTINCT worker_id)::integer AS workers,
      count(*) FILTER (WHERE status <> 'completed')::integer AS unfinished, count(*) FILTER (WHERE attempt > 1)::integer AS retried,
      (percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - scheduled_for)))::text AS latency,
      max(extract(epoch FROM started_at - scheduled_for))::float AS worst
    FROM backup_executions`)
  const shares = await server.query('catalog', 'SELECT count(*)::integer AS n FROM backup_executions GROUP BY worker_id ORDER BY 1')
  const statements = await server.query('postgres', `
    SELECT calls::integer, rows::integer, mean_exec_time AS ms, left(regexp_replace(query, '\\s+', ' ', 'g'), 100) AS query FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = 'catalog') ORDER BY calls DESC`)
  const [p50, p99] = result.latency.replace(/[{}]/g, '').split(',').map((value) => Number(value) * 1000)
  const total = statements.reduce((sum, { calls }) => sum + calls, 0)
  console.log(`node ${process.version}, ${cpus().length} cores (${cpus()[0].model}) for ${daemons} daemons and the server, ${schedules} schedules due within ${spread} s`)
  console.log(`${result.executions} executions of ${result.schedules} schedules by ${result.workers} daemons (${shares[0].n} to ${shares.at(-1).n} each), ${result.unfinished} unfinished, ${result.retried} retried`)
  console.log(`due to claimed: p50 ${p50.toFixed(0)} ms, p99 ${p99.toFixed(0)} ms, worst ${(result.worst * 1000).toFixed(0)} ms`)
  console.log(`${(total / schedules).toFixed(1)} statements per execution in all`)
  for (const { calls, ms, query } of statements.slice(0, 16)) console.log(`  ${(calls / schedules).toFixed(2).padStart(7)} per execution  ${ms.toFixed(2).padStart(7)} ms  ${query}`)
  if (result.executions !== schedules || result.schedules !== schedules || result.unfinished > 0) {
    console.log('NOT exactly once')
    process.exitCode = 1
  }
} finally {
  await Promise.all(children.map((child) => new Promise((gone) => {
    if (child.exitCode !== null || child.signalCode !== null) return gone()
    child.once('exit', gone)
    child.kill('SIGTERM')
  })))
  await server.stop()
  rmSync(state, { recursive: true, force: true })
}
