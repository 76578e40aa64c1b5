// Three daemons with short schedules, of which one after the other is killed, frozen, stopped, and loses the catalog, at random.
// Afterwards nothing may be lost, doubled, stuck or half-made. Usage: node bench/chaos.mjs [ROUNDS [SEED]]
// Leases are as long as always, 30 s; only the pause before another attempt is shorter than in earnest.
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { startServer } from './server.mjs'

const rounds = Number(process.argv[2] ?? 200)
const seed = Number(process.argv[3] ?? 1)
const dist = resolve(process.env.BENCH_DIST ?? 'dist')
const program = new URL('daemon-process.mjs', import.meta.url).pathname
const schedules = 6
const period = 20

// mulberry32, so that a run can be repeated as far as processes and clocks allow.
let state = seed >>> 0
const random = () => {
  state = (state + 0x6d2b79f5) >>> 0
  let mixed = Math.imul(state ^ (state >>> 15), state | 1)
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
}
const between = (low, high) => low + random() * (high - low)
const pick = (list) => list[Math.floor(random() * list.length)]

const home = mkdtempSync(join(tmpdir(), 'backupd-chaos-'))
const storage = join(home, 'backups')
// Two servers, because the source must not go down with the catalog.
const [catalog, source] = await Promise.all([startServer(), startServer()])
const env = {
  PATH: process.env.PATH, BACKUPD_STATE_DIR: join(home, 'state'), BACKUPD_DATABASE_URL: catalog.url('catalog'), BACKUPD_SOURCE_URL: source.url('shop'),
  BACKUPD_LISTEN: '127.0.0.1:0', BACKUPD_RETRIES: '20', BACKUPD_DRAIN_TIMEOUT: '2',
}

const daemons = [0, 1, 2].map((number) => ({ number, child: undefined, frozen: false, log: [], exits: [] }))
const start = (daemon) => {
  const child = spawn(process.execPath, [program, dist, '{"retryDelay": 1000}'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  Object.assign(daemon, { child, frozen: false })
  let wanted = false
  daemon.end = (signal) => {
    wanted = true
    child.kill(signal)
  }
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (block) => daemon.log.push(block.toString()))
  child.once('exit', (code, signal) => {
    if (!wanted || (signal === null && code !== 0)) daemon.exits.push(`daemon ${daemon.number} ended by itself: ${code ?? signal}`)
  })
}
const alive = ({ child }) => child.exitCode === null && child.signalCode === null
const gone = ({ child }) => new Promise((done) => (child.exitCode !== null || child.signalCode !== null ? done() : child.once('exit', done)))

const counts = { kill: 0, freeze: 0, stop: 0, catalog: 0 }
const later = []
const faults = {
  kill: async (daemon) => {
    daemon.end('SIGKILL')
    await gone(daemon)
    await wait(between(0, 3_000))
    start(daemon)
  },
  freeze: async (daemon) => {
    const { child } = daemon
    daemon.frozen = true
    child.kill('SIGSTOP')
    // Some wake up in time, others after their lease has ended.
    later.push(wait(between(1_000, 45_000)).then(() => {
      if (daemon.child === child) daemon.frozen = false
      child.kill('SIGCONT')
    }))
  },
  stop: async (daemon) => {
    daemon.end('SIGTERM')
    await gone(daemon)
    start(daemon)
  },
  catalog: async () => {
    await catalog.kill9()
    await wait(between(0, 6_000))
    await catalog.start()
  },
}

const query = (text) => catalog.query('catalog', text)
const problems = []
const expect = (good, what, details) => {
  if (good) return
  problems.push(what)
  console.log(`PROBLEM ${what}`, details === undefined ? '' : JSON.stringify(details, null, 1))
}

/** Folders of the storage and whether each is a whole backup: a manifest, and every part of it in its size. */
const folders = () => new Map((existsSync(storage) ? readdirSync(storage) : []).filter((name) => !name.startsWith('.')).map((name) => {
  const dir = join(storage, name)
  const manifest = join(dir, 'manifest.json')
  const files = readdirSync(dir)
  if (files.length === 0) return [name, 'empty']
  if (!existsSync(manifest)) return [name, 'half']
  const { parts } = JSON.parse(readFileSync(manifest, 'utf8'))
  return [name, parts.every((part) => existsSync(join(storage, part.key)) && statSync(join(storage, part.key)).size === part.stored_size) ? 'whole' : 'half']
}))
const wrong = async () => {
  const good = new Set((await query(`SELECT backup_id FROM backup_executions WHERE status = 'completed'`)).map((row) => row.backup_id))
  const found = folders()
  return {
    leftOver: [...found].filter(([name, kind]) => kind !== 'empty' && !good.has(name)).map(([name]) => name),
    missing: [...good].filter((name) => found.get(name) !== 'whole'),
  }
}

for (const name of ['SIGTERM', 'SIGINT']) {
  process.once(name, () => {
    for (const { child } of daemons) child?.kill('SIGKILL')
    for (const server of [catalog, source]) server.endNow()
    rmSync(home, { recursive: true, force: true })
    process.exit(1)
  })
}

const began = performance.now()
try {
  await catalog.query('postgres', 'CREATE DATABASE catalog')
  await source.query('postgres', 'CREATE DATABASE shop')
  await source.query('shop', `CREATE TABLE noise AS SELECT i, string_agg(decode(md5(i::text || j::text), 'hex'), '') AS data FROM generate_series(1, 8) i, generate_series(1, 16384) j GROUP BY i`)
  daemons.forEach(start)
  for (;;) {
    const [row] = await query(`SELECT count(*)::integer AS n FROM backup_workers`).catch(() => [])
    if (row?.n === 3) break
    await wait(200)
  }
  await query(`INSERT INTO storage_backend_configs (name, backend_type, config_data) VALUES ('disk', 'local', '{"base_path": "${storage}"}')`)
  // 2 MB at 8 Mbit/s: some two seconds each.
  for (let n = 0; n < schedules; n += 1) {
    await query(`INSERT INTO backup_schedules (name, cron_expression, timezone, backup_type, storage_backend_id, compression_type, encrypt_backup, verify_integrity, bandwidth_limit_mbps)
      VALUES ('often ${n}', '${(n * 3) % period}/${period} * * * * *', 'UTC', 'database_only', 1, 'none', false, ${n % 2 === 0}, 8)`)
  }
  for (let round = 1; round <= rounds; round += 1) {
    await wait(between(500, 3_500))
    const fault = pick(['kill', 'kill', 'kill', 'freeze', 'freeze', 'stop', 'catalog'])
    const awake = daemons.filter((daemon) => !daemon.frozen && alive(daemon))
    // A killed one may be frozen: that is the end of it.
    const daemon = pick(fault === 'kill' ? daemons.filter(alive) : awake)
    if (fault !== 'catalog' && daemon === undefined) continue
    counts[fault] += 1
    await faults[fault](daemon)
    for (const dead of daemons) if (!alive(dead)) start(dead)
    if (round % 20 === 0) console.log(`round ${round}, ${Math.round((performance.now() - began) / 1000)} s`)
  }
  await Promise.all(later)
  for (const daemon of daemons) if (!alive(daemon)) start(daemon)

  // No more ticks; what was begun comes to its end.
  await query(`UPDATE backup_schedules SET cron_expression = '0 0 1 1 *'`)
  const live = async () => (await query(`SELECT id, status, attempt, worker_id, lease_expires_at, error_message FROM backup_executions WHERE status IN ('pending', 'running', 'verifying')`))
  for (const until = Date.now() + 240_000; (await live()).length > 0 && Date.now() < until; ) await wait(500)
  for (const until = Date.now() + 200_000; Date.now() < until; await wait(1_000)) {
    const { leftOver } = await wrong()
    if (leftOver.length === 0) break
  }

  const stuck = await live()
  expect(stuck.length === 0, `${stuck.length} executions are stuck`, stuck)
  const lost = await query(`
    SELECT e.id, e.schedule_id, e.scheduled_for, e.attempt, e.status, e.error_message, e.error_details FROM backup_executions e
    WHERE e.status <> 'completed' AND NOT EXISTS (SELECT FROM backup_executions next WHERE next.retry_of = e.id)`)
  expect(lost.length === 0, `${lost.length} executions are lost`, lost)
  const doubled = await query(`SELECT schedule_id, scheduled_for, count(*)::integer AS n FROM backup_executions WHERE status = 'completed' GROUP BY 1, 2 HAVING count(*) > 1`)
  expect(doubled.length === 0, `${doubled.length} runs were done twice`, doubled)
  const beside = await query(`SELECT a.id AS first, b.id AS second FROM backup_executions a JOIN backup_executions b ON a.schedule_id = b.schedule_id AND a.id < b.id
    AND tstzrange(a.started_at, a.completed_at) && tstzrange(b.started_at, b.completed_at) AND a.completed_at > b.started_at + interval '5 milliseconds'`)
  expect(beside.length === 0, `${beside.length} pairs of runs of one schedule ran beside each other`, beside)
  const { leftOver, missing } = await wrong()
  expect(leftOver.length === 0, `${leftOver.length} half-made or ownerless backups are left`, await query(`SELECT id, backup_id, status, error_details, execution_metadata, completed_at FROM backup_executions WHERE backup_id = ANY('{${leftOver.join(',')}}')`))
  expect(missing.length === 0, `${missing.length} completed backups are not whole`, missing)
  const untrue = await query(`SELECT s.name, s.total_runs, s.successful_runs, s.failed_runs, c.* FROM backup_schedules s CROSS JOIN LATERAL (
      SELECT count(*)::integer AS total, count(*) FILTER (WHERE status = 'completed')::integer AS successful, count(*) FILTER (WHERE status = 'failed')::integer AS failed
      FROM backup_executions WHERE schedule_id = s.id) c
    WHERE (s.total_runs, s.successful_runs, s.failed_runs) <> (c.total, c.successful, c.failed)`)
  expect(untrue.length === 0, `${untrue.length} schedules have untrue statistics`, untrue)
  const [totals] = await query(`SELECT total_backups = (SELECT count(*) FROM backup_executions WHERE status = 'completed') AS same FROM storage_backend_configs`)
  expect(totals.same, 'the totals of the storage are untrue')
  for (const { exits } of daemons) for (const exit of exits) expect(false, exit)

  const [summary] = await query(`SELECT count(*)::integer AS n, count(*) FILTER (WHERE status = 'completed')::integer AS completed, count(*) FILTER (WHERE status = 'failed')::integer AS failed,
    max(attempt) AS attempts, count(DISTINCT (schedule_id, scheduled_for))::integer AS ticks FROM backup_executions`)
  const reasons = await query(`SELECT error_details ->> 'code' AS code, count(*)::integer AS n FROM backup_executions WHERE status = 'failed' GROUP BY 1 ORDER BY 2 DESC`)
  const partials = existsSync(join(storage, '.backupd-partial')) ? readdirSync(join(storage, '.backupd-partial')).length : 0
  console.log(`node ${process.version}, ${cpus().length} cores (${cpus()[0].model}), seed ${seed}, ${rounds} rounds in ${Math.round((performance.now() - began) / 1000)} s: ${counts.kill} kills, ${counts.freeze} freezes, ${counts.stop} stops, ${counts.catalog} catalog crashes`)
  console.log(`${summary.ticks} ticks, ${summary.n} executions, ${summary.completed} completed, ${summary.failed} failed and tried again (up to ${summary.attempts} attempts): ${reasons.map(({ code, n }) => `${code} ${n}`).join(', ')}`)
  console.log(`lost ${lost.length}, doubled ${doubled.length + beside.length}, stuck ${stuck.length}, half-made objects left ${leftOver.length}; ${partials} unfinished uploads of killed processes wait for the storage's daily sweep`)
} finally {
  for (const daemon of daemons) {
    if (daemon.child === undefined) continue
    daemon.end('SIGKILL')
    await gone(daemon)
  }
  if (problems.length > 0) {
    process.exitCode = 1
    if (process.env.CHAOS_LOG !== undefined) for (const { number, log } of daemons) (await import('node:fs')).writeFileSync(`${process.env.CHAOS_LOG}.${number}`, log.join(''))
  }
  await Promise.all([catalog.stop(), source.stop()])
  rmSync(home, { recursive: true, force: true })
}
