import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { makeBucket } from '../servers/buckets.js'
import { startProxy } from '../servers/proxy.js'
import { startRgw } from '../servers/rgw.js'
import { programPath } from '../support/cli.js'
import { createWorld, type ShownExecution } from './world.js'

const megabytes = 300

/** Runs the program, and gives what it printed and its peak resident memory in MB, as Linux counts it. */
const measured = async (args: string[], env: Record<string, string>): Promise<{ stdout: string; peak: number }> => {
  const child = spawn(process.execPath, [programPath(), ...args], { env: { PATH: process.env['PATH'] ?? '', ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const output: string[] = []
  child.stdout.on('data', (block: Buffer) => output.push(block.toString()))
  let errors = ''
  child.stderr.on('data', (block: Buffer) => (errors += block.toString()))
  let peak = 0
  const look = (): void => {
    try {
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1] ?? 0) / 1024)
    } catch {
      // It has ended.
    }
  }
  const timer = setInterval(look, 20)
  const [code] = (await once(child, 'close')) as [number | null]
  clearInterval(timer)
  if (code !== 0) throw new Error(`backupd ${args.join(' ')} ended with ${code}\n${output.join('')}\n${errors}`)
  return { stdout: output.join(''), peak }
}

t.test(`${megabytes} MB to S3 over a slow line, with 8 parts in flight, stay within 300 MB of memory`, async (t) => {
  const server = await startRgw()
  t.teardown(() => server.stop())
  await makeBucket(server, 'backups')
  const proxy = await startProxy({ port: server.port })
  t.teardown(() => proxy.stop())
  proxy.set({ latency: 50, rate: 10_000_000 })
  const world = await createWorld(t)
  await world.sql('shop', `CREATE TABLE large AS SELECT i, repeat(md5(i::text), 31250) AS text FROM generate_series(1, ${megabytes}) i`)
  const config = { bucket_name: 'backups', endpoint: `http://127.0.0.1:${proxy.port}`, access_key_id: server.accessKey, secret_access_key: server.secretKey }
  await world.ok(['storage', 'add', 's3', '--type', 'aws_s3', ...Object.entries(config).flatMap(([key, value]) => ['--set', `${key}=${value}`])])
  await world.ok(['schedule', 'add', 'large', '--cron', '@daily', '--storage', 's3', '--compression', 'none', '--parallel-uploads', '8'])
  const env = { BACKUPD_STATE_DIR: world.stateDir, BACKUPD_DATABASE_URL: world.server.url('catalog'), BACKUPD_SOURCE_URL: world.server.url('shop'), HOME: join(world.stateDir, 'nowhere') }

  const backup = await measured(['run-now', 'large', '--json'], env)
  const shown = JSON.parse(backup.stdout) as ShownExecution
  t.match(shown, { status: 'completed', verification_status: 'verified' })
  t.ok(shown.compressed_size_bytes > megabytes * 1_000_000, 'all of it was stored')
  t.ok(backup.peak > 50 && backup.peak < 300, `backup and read-back: ${backup.peak.toFixed(0)} MB at most`)
  const copy = await measured(['copy', String(shown.id), '--to', 'disk', '--json'], env)
  t.ok(copy.peak > 50 && copy.peak < 300, `copy to the disk: ${copy.peak.toFixed(0)} MB at most`)
  const restore = await measured(['restore', String(shown.id), '--into', 'back', '--json'], env)
  t.ok(restore.peak > 50 && restore.peak < 300, `restore: ${restore.peak.toFixed(0)} MB at most`)
  t.comment(`peaks: backup ${backup.peak.toFixed(0)} MB, copy ${copy.peak.toFixed(0)} MB, restore ${restore.peak.toFixed(0)} MB`)
})
