// What a daemon costs that has nothing to do: resident memory, CPU, queries of the catalog. Usage: node bench/idle.mjs [SECONDS]
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { startServer } from './server.mjs'

const seconds = Number(process.argv[2] ?? 120)
const node = process.env.BENCH_NODE ?? process.execPath
const state = mkdtempSync(join(tmpdir(), 'backupd-idle-'))
const server = await startServer({ shared_preload_libraries: 'pg_stat_statements' })
let daemon
try {
  await server.query('postgres', 'CREATE DATABASE catalog')
  await server.query('postgres', 'CREATE EXTENSION pg_stat_statements')
  daemon = spawn(node, ['dist/main.js', 'daemon'], {
    env: { PATH: process.env.PATH, BACKUPD_STATE_DIR: state, BACKUPD_DATABASE_URL: server.url('catalog'), BACKUPD_LISTEN: '127.0.0.1:0' }, stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise((resolve) => daemon.stdout.on('data', (block) => block.toString().includes('"ready"') && resolve()))
  await server.query('catalog', `INSERT INTO storage_backend_configs (name, backend_type, config_data) VALUES ('disk', 'local', '{"base_path": "${state}"}')`)
  await server.query('catalog', `INSERT INTO backup_schedules (name, cron_expression, backup_type, storage_backend_id) SELECT 'schedule ' || i, '0 2 1 1 *', 'full', 1 FROM generate_series(1, 20) i`)
  // It settles: compilation, first health checks, garbage collection.
  await wait(30_000)
  const status = () => Object.fromEntries(readFileSync(`/proc/${daemon.pid}/status`, 'utf8').split('\n').map((line) => line.split(/:\s+/)))
  // Clock ticks of user and system time, a hundredth of a second each.
  const cpu = () => readFileSync(`/proc/${daemon.pid}/stat`, 'utf8').split(') ')[1].split(' ').slice(11, 13).reduce((sum, ticks) => sum + Number(ticks), 0) / 100
  await server.query('postgres', 'SELECT pg_stat_statements_reset()')
  const before = cpu()
  await wait(seconds * 1000)
  const used = cpu() - before
  const queries = await server.query('postgres', `
    SELECT calls, left(regexp_replace(query, '\\s+', ' ', 'g'), 90) AS query FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = 'catalog') ORDER BY calls DESC`)
  const total = queries.reduce((sum, { calls }) => sum + Number(calls), 0)
  console.log(`node ${(await import('node:child_process')).execFileSync(node, ['--version']).toString().trim()}, ${cpus()[0].model}, ${seconds} s, 20 schedules, none due`)
  console.log(`resident memory ${(parseInt(status().VmRSS) / 1024).toFixed(0)} MB (peak ${(parseInt(status().VmHWM) / 1024).toFixed(0)} MB), CPU ${((used / seconds) * 100).toFixed(2)} % of a core, ${((total / seconds) * 60).toFixed(1)} statements per minute`)
  for (const { calls, query } of queries) console.log(`  ${((Number(calls) / seconds) * 60).toFixed(1).padStart(6)} per minute  ${query}`)
} finally {
  daemon?.kill('SIGTERM')
  await new Promise((resolve) => (daemon === undefined ? resolve() : daemon.once('exit', resolve)))
  await server.stop()
  rmSync(state, { recursive: true, force: true })
}
