// The main job from nothing: a sample database is backed up on a schedule's terms, verified, restored into a new database and
// compared. Everything lives in one temporary folder, which is removed at the end. `npm run demo -- 300` makes the sample larger.
import { spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectTo, createSampleDatabase } from './sample-database.mjs'

const { startEmbedded } = await import('../dist/postgres/embedded.js')
const { silentLog } = await import('../dist/log.js')

const megabytes = Number(process.argv[2] ?? 100)
const home = mkdtempSync(join(tmpdir(), 'backupd-demo-'))
// Started as root, the servers run as an unprivileged user, who must be able to walk through here.
chmodSync(home, 0o755)
const stop = new AbortController()
process.once('SIGINT', () => stop.abort(new Error('interrupted')))
process.once('SIGTERM', () => stop.abort(new Error('interrupted')))

// Nothing of the caller's own set-up reaches the demo.
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(BACKUPD_|DATABASE_URL$|STATE_DIRECTORY$|PG)/.test(name)))
Object.assign(env, { BACKUPD_STATE_DIR: join(home, 'state') })

const say = (text) => console.log(`\n\x1b[1m# ${text}\x1b[0m`)

const quoted = (word) => (/^[\w./:@=-]+$/.test(word) ? word : `'${word}'`)

/** Shows a command as a user would type it, runs it, and fails when it fails. */
const backupd = async (...args) => {
  console.log(`\n$ backupd ${args.map(quoted).join(' ')}`)
  const child = spawn(process.execPath, ['dist/main.js', ...args], { env, stdio: 'inherit' })
  const code = await new Promise((resolve) => child.on('close', resolve))
  if (code !== 0) throw new Error(`backupd ${args[0]} ended with exit code ${code}`)
}

const inDatabase = (url, database) => url.replace(/\/[^/?]*(\?|$)/, `/${database}$1`)

const within = async (url, work) => {
  const sql = connectTo(url, { max: 1 })
  try {
    return await work(sql)
  } finally {
    await sql.end()
  }
}

/** Row count and a hash of all rows, whatever their order, of every table; the large objects and the sequence as well. */
const fingerprint = (url) => within(url, async (sql) => {
  const tables = await sql`SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname = 'sample' ORDER BY 1`
  const prints = {}
  for (const { name } of tables) {
    const [row] = await sql.unsafe(`SELECT count(*)::text AS rows, md5(coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint), 0)::text) AS hash FROM ${name} t`)
    prints[name] = row
  }
  const [objects] = await sql`SELECT count(*)::text AS rows, md5(string_agg(md5(lo_get(oid)), ',' ORDER BY oid)) AS hash FROM pg_largeobject_metadata`
  const [sequence] = await sql`SELECT '1' AS rows, md5(last_value::text) AS hash FROM sample.invoice_number`
  const [view] = await sql`SELECT count(*)::text AS rows, md5(sum(total)::text) AS hash FROM sample.revenue`
  return { ...prints, 'large objects': objects, 'sample.invoice_number (sequence)': sequence, 'sample.revenue (view)': view }
})

const compare = (before, after) => {
  const wide = Math.max(...Object.keys(before).map((name) => name.length))
  for (const [name, { rows, hash }] of Object.entries(before)) {
    const same = after[name]?.rows === rows && after[name]?.hash === hash
    console.log(`${name.padEnd(wide)}  ${rows.padStart(8)} rows  ${hash}  ${same ? 'same' : `DIFFERENT: ${JSON.stringify(after[name])}`}`)
    if (!same) throw new Error(`${name} differs after the restore`)
  }
}

let server
try {
  const started = performance.now()
  say('A throw-away PostgreSQL server with a sample database')
  server = await startEmbedded({ stateDir: join(home, 'source'), log: silentLog(), signal: stop.signal })
  const admin = server.url.reveal()
  await within(admin, (sql) => sql.unsafe('CREATE DATABASE shop'))
  const url = inDatabase(admin, 'shop')
  await createSampleDatabase(url, { megabytes, log: (line) => console.log(line) })
  env.SHOP_URL = url

  say('A key, a source, a storage and a schedule. The catalog is an embedded PostgreSQL, because no other is named')
  await backupd('key', 'generate', '--name', 'demo')
  await backupd('source', 'add', 'shop', '--url', '{"$env":"SHOP_URL"}')
  await backupd('storage', 'add', 'disk', '--type', 'local', '--set', `base_path=${join(home, 'backups')}`)
  await backupd('schedule', 'add', 'nightly', '--cron', '0 2 * * *', '--timezone', 'Europe/Berlin', '--source', 'shop', '--storage', 'disk', '--compression', 'zstd')

  say('A backup, now')
  await backupd('run-now', 'nightly')
  await backupd('list')
  await backupd('show', 'latest:nightly')

  say('Read back: digests, decryption, decompression, and the archive listed by pg_restore')
  await backupd('verify', 'latest:nightly', '--level', 'archive')

  say('Restored into a new database')
  await backupd('restore', 'latest:nightly', '--into', 'shop_restored')

  say('Compared, table by table')
  compare(await fingerprint(url), await fingerprint(inDatabase(admin, 'shop_restored')))
  console.log(`\nThe restored database is the same. ${Math.round((performance.now() - started) / 1000)} seconds, and nothing is left behind.`)
} catch (error) {
  console.error(`\nThe demo failed: ${error.message}`)
  process.exitCode = 1
} finally {
  await server?.close()
  rmSync(home, { recursive: true, force: true })
}
