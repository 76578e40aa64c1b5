// Appends to the audit trail per second, by one writer and by several processes, and the plans of the queries that audit_logs is asked on
// a million rows. The server writes to the disk at every commit (fsync on).
// Usage: node bench/audit.mjs [SECONDS [ROWS [PROCESSES]]]
import { fork } from 'node:child_process'
import { cpus } from 'node:os'
import { resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { startServer } from './server.mjs'

const dist = resolve(process.env.BENCH_DIST ?? 'dist')
const load = (path) => import(pathToFileURL(`${dist}/${path}`).href)
const { writeAudit } = await load('audit/audit.js')
const { verifyAudit } = await load('audit/verify.js')
const { openCatalog } = await load('catalog/connect.js')
const { silentLog } = await load('log.js')
const { Secret } = await load('secret.js')

const open = (url) => openCatalog({ databaseUrl: new Secret(url), stateDir: '/nonexistent', log: silentLog(), signal: new AbortController().signal })
const event = (n) => ({
  event_type: 'schedule.updated', event_category: 'configuration', action: 'update', actor: { username: 'bench', host: 'bench' },
  resource: { type: 'schedule', id: n, name: `schedule ${n}` }, before: { is_active: true, cron_expression: '0 2 * * *' }, after: { is_active: false, cron_expression: '0 3 * * *' },
})

/** Keeps `inFlight` appends on their way for `seconds`; resolves to how many were committed per second. */
const append = async (db, seconds, inFlight) => {
  const began = performance.now()
  let done = 0
  await Promise.all(Array.from({ length: inFlight }, async () => {
    while (performance.now() - began < seconds * 1000) {
      await writeAudit(db, event(done))
      done += 1
    }
  }))
  return Math.round(done / ((performance.now() - began) / 1000))
}

const worker = async ({ url, seconds, inFlight }) => {
  const catalog = await open(url)
  process.send(await append(catalog.db, seconds, inFlight))
  await catalog.close()
  process.disconnect()
}

const inProcesses = async (processes, job) => {
  const rates = await Promise.all(Array.from({ length: processes }, () => new Promise((rate) => {
    const child = fork(fileURLToPath(import.meta.url), ['worker'])
    child.once('message', rate)
    child.send(job)
  })))
  return rates.reduce((sum, rate) => sum + rate, 0)
}

const queries = {
  'by user and time': `SELECT * FROM audit_logs WHERE user_id = 17 AND created_at > now() - interval '1 day' ORDER BY created_at DESC LIMIT 100`,
  'by address and time': `SELECT * FROM audit_logs WHERE ip_address = '10.0.3.17' AND created_at > now() - interval '30 days' ORDER BY created_at DESC LIMIT 100`,
  'category and severity': `SELECT * FROM audit_logs WHERE category = 'security_event' AND severity = 'critical'`,
  'compliance flags': 'SELECT * FROM audit_logs WHERE gdpr_relevant AND sox_relevant AND hipaa_relevant',
  'sensitive data and time': `SELECT * FROM audit_logs WHERE sensitive_data_accessed AND created_at > now() - interval '1 day' ORDER BY created_at DESC`,
  'due for the archive': 'SELECT id FROM audit_logs WHERE retention_until < now() AND NOT archived ORDER BY retention_until LIMIT 10000',
}

const plans = async (sql, rows) => {
  await sql.unsafe(`INSERT INTO users (id) SELECT generate_series(1, 1000)`)
  await sql.unsafe(`
    INSERT INTO audit_logs (user_id, session_id, action, resource_type, resource_id, category, severity, ip_address, request_method, request_url, details,
      sensitive_data_accessed, gdpr_relevant, sox_relevant, hipaa_relevant, created_at, retention_until)
    SELECT 1 + i % 1000, md5((i / 50)::text), (ARRAY['login', 'page_view', 'update', 'delete'])[1 + i % 4], (ARRAY['user', 'project', 'page'])[1 + i % 3], i::text,
      (ARRAY['authentication', 'data_access', 'system_config', 'user_management', 'security_event'])[1 + i % 5],
      CASE WHEN i % 997 = 0 THEN 'critical' WHEN i % 97 = 0 THEN 'high' WHEN i % 7 = 0 THEN 'low' ELSE 'medium' END,
      format('10.0.%s.%s', i % 16, i % 250), 'GET', '/api/v1/pages/' || i, jsonb_build_object('n', i),
      i % 101 = 0, i % 13 = 0, i % 11 = 0, i % 17 = 0, now() - make_interval(secs => i * 7776000.0 / ${rows}),
      now() - make_interval(secs => i * 7776000.0 / ${rows}) + interval '88 days'
    FROM generate_series(1, ${rows}) i`)
  await sql.unsafe('VACUUM ANALYZE audit_logs')
  for (const [name, query] of Object.entries(queries)) {
    const plan = (await sql.unsafe(`EXPLAIN (ANALYZE, COSTS OFF) ${query}`)).map((row) => row['QUERY PLAN'])
    console.log(`\n${name}\n  ${query}\n${plan.map((line) => `    ${line}`).join('\n')}`)
    if (plan.some((line) => /Seq Scan/.test(line))) process.exitCode = 1
  }
}

const measure = async () => {
  const [seconds = 5, rows = 1_000_000, processes = 4] = process.argv.slice(2).map(Number)
  const server = await startServer({ fsync: 'on', max_connections: 100 })
  try {
    await server.query('postgres', 'CREATE DATABASE catalog')
    const url = server.url('catalog')
    const catalog = await open(url)
    try {
      console.log(`${cpus().length} cores (${cpus()[0].model}), Node ${process.version}, fsync on, ${seconds} s each\n`)
      console.log('appends per second, each resolved after its commit:')
      console.log(`  one writer that waits for each        ${await append(catalog.db, seconds, 1)}`)
      console.log(`  one process, 100 on their way         ${await append(catalog.db, seconds, 100)}`)
      console.log(`  ${processes} processes, one writer each           ${await inProcesses(processes, { url, seconds, inFlight: 1 })}`)
      console.log(`  ${processes} processes, 100 on their way in each  ${await inProcesses(processes, { url, seconds, inFlight: 100 })}`)
      const began = performance.now()
      const { ok, checked } = await verifyAudit(catalog.db)
      console.log(`  the chain of ${checked} entries is ${ok ? 'whole' : 'BROKEN'}, followed in ${Math.round(performance.now() - began)} ms`)
      if (!ok) process.exitCode = 1
      if (rows > 0) {
        console.log(`\nqueries on audit_logs with ${rows} rows`)
        await plans(catalog.sql, rows)
      }
    } finally {
      await catalog.close()
    }
  } finally {
    await server.stop()
  }
}

if (process.argv[2] === 'worker') process.once('message', (job) => void worker(job))
else await measure()
