// A backup and a restore against the stock pipelines, in turn and in the same run: wall time as a ratio, and peak resident memory.
// Usage: node bench/backup.mjs [MEGABYTES [ROUNDS]]. BENCH_NODE names another node to run the program with.
import { execFileSync, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectTo, createSampleDatabase } from '../scripts/sample-database.mjs'

const { startEmbedded } = await import('../dist/postgres/embedded.js')
const { silentLog } = await import('../dist/log.js')

const megabytes = Number(process.argv[2] ?? 1000)
const rounds = Number(process.argv[3] ?? 5)
const node = process.env.BENCH_NODE ?? process.execPath
const home = mkdtempSync(join(tmpdir(), 'backupd-bench-'))
chmodSync(home, 0o755)

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]

/** Wall seconds of a command, its whole process tree waited for, and the peak resident memory of the command itself in MB. */
const timed = async (command, args, env) => {
  const started = performance.now()
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'pipe'] })
  let errors = ''
  child.stderr.on('data', (block) => (errors += block))
  let peak = 0
  const look = setInterval(() => {
    try {
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1] ?? 0))
    } catch {
      // It has ended.
    }
  }, 50)
  const code = await new Promise((resolve) => child.on('close', resolve))
  clearInterval(look)
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}\n${errors}`)
  return { seconds: (performance.now() - started) / 1000, memory: peak / 1024 }
}

const report = (what, ours, stock) => {
  const ratios = ours.map(({ seconds }, at) => seconds / stock[at].seconds)
  const wall = (runs) => median(runs.map(({ seconds }) => seconds)).toFixed(2)
  console.log(`${what.padEnd(8)} ours ${wall(ours)} s, stock ${wall(stock)} s, ratio median ${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}), peak memory ${Math.max(...ours.map(({ memory }) => memory)).toFixed(0)} MB`)
}

let server
try {
  server = await startEmbedded({ stateDir: join(home, 'server'), log: silentLog(), signal: new AbortController().signal })
  const admin = server.url.reveal()
  const inDatabase = (name) => admin.replace(/\/[^/?]*\?/, `/${name}?`)
  const query = async (text) => {
    const sql = connectTo(inDatabase('postgres'), { max: 1 })
    await sql.unsafe(text)
    await sql.end()
  }
  await query('CREATE DATABASE bench')
  await query('CREATE DATABASE catalog')
  await createSampleDatabase(inDatabase('bench'), { megabytes })
  const env = { BACKUPD_STATE_DIR: join(home, 'state'), BACKUPD_DATABASE_URL: inDatabase('catalog'), BACKUPD_SOURCE_URL: inDatabase('bench') }
  const backupd = (...args) => timed(node, ['dist/main.js', ...args], env)
  await backupd('key', 'generate', '--name', 'bench', '--out', join(home, 'key.txt'))
  await backupd('storage', 'add', 'disk', '--type', 'local', '--set', `base_path=${home}/backups`)
  await backupd('schedule', 'add', 'bench', '--cron', '@daily', '--storage', 'disk', '--compression', 'zstd', '--no-verify')
  const recipient = /public key: (\S+)/.exec(readFileSync(join(home, 'key.txt'), 'utf8'))[1]
  const identity = { BACKUPD_IDENTITY_FILE: join(home, 'key.txt') }

  const url = new URL(inDatabase('bench'))
  const pg = { PGHOST: url.searchParams.get('host'), PGUSER: url.username, PGPASSWORD: decodeURIComponent(url.password), PGDATABASE: 'bench' }
  const bin = '/usr/lib/postgresql/15/bin'
  const stockFile = join(home, 'stock.age')
  const stockBackup = () => timed('bash', ['-c', `set -o pipefail; ${bin}/pg_dump -Fc -Z0 | zstd -3 -q | age -r ${recipient} | tee >(sha256sum >/dev/null) > ${stockFile}`], pg)
  const stockRestore = () => timed('bash', ['-c', `set -o pipefail; age -d -i ${home}/key.txt ${stockFile} | zstd -d -q | ${bin}/pg_restore --exit-on-error -d stock_back`], pg)

  console.log(`node ${execFileSync(node, ['--version']).toString().trim()}, ${cpus().length} cores (${cpus()[0].model}), ${megabytes} MB, ${rounds} rounds in turn, PostgreSQL 15 on the same machine`)
  const ours = { backup: [], restore: [] }
  const stock = { backup: [], restore: [] }
  await backupd('run-now', 'bench')
  await stockBackup()
  for (let round = 0; round < rounds; round += 1) {
    ours.backup.push(await backupd('run-now', 'bench'))
    stock.backup.push(await stockBackup())
  }
  report('backup', ours.backup, stock.backup)
  for (let round = 0; round < rounds; round += 1) {
    Object.assign(env, identity)
    ours.restore.push(await backupd('restore', 'latest:bench', '--into', 'ours_back'))
    await query('DROP DATABASE ours_back WITH (FORCE)')
    await query('CREATE DATABASE stock_back TEMPLATE template0')
    stock.restore.push(await stockRestore())
    await query('DROP DATABASE stock_back WITH (FORCE)')
  }
  report('restore', ours.restore, stock.restore)
  console.log(`stored: stock ${(statSync(stockFile).size / 1e6).toFixed(0)} MB`)
} finally {
  await server?.close()
  rmSync(home, { recursive: true, force: true })
}
