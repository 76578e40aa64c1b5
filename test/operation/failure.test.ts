import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { programPath } from '../support/cli.js'
import { startPostgres } from '../support/postgres-server.js'
import { connectTo } from '../support/sql.js'
import { tempDir } from '../support/temp.js'
import { createWorld, type ShownExecution, type World } from './world.js'

// Enough that a run takes a while under the limit that `slow` has.
const bulk = "CREATE TABLE bulk AS SELECT i, (SELECT string_agg(sha256((i || ' ' || j)::bytea), NULL) FROM generate_series(1, 1000) j) AS b FROM generate_series(1, 400) i"

const slow = async (world: World, name = 'slow', ...rest: string[]): Promise<void> => {
  await world.sql('shop', bulk)
  await world.ok(['schedule', 'add', name, '--cron', '@daily', '--storage', 'disk', '--compression', 'none', '--bandwidth', '8', '--no-verify', ...rest])
}

interface Started {
  child: ChildProcess
  ended: Promise<{ code: number | null; stdout: string }>
}

const start = (world: World, args: string[], env: Record<string, string> = {}): Started => {
  const child = spawn(process.execPath, [programPath(), ...args], {
    env: { PATH: process.env['PATH'] ?? '', HOME: world.stateDir, BACKUPD_STATE_DIR: world.stateDir, BACKUPD_DATABASE_URL: world.server.url('catalog'), BACKUPD_SOURCE_URL: world.server.url('shop'), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  child.stdout.on('data', (block: Buffer) => (stdout += block.toString()))
  child.stderr.on('data', (block: Buffer) => world.printed.push(block.toString()))
  const ended = new Promise<{ code: number | null; stdout: string }>((resolve) => child.on('close', (code) => resolve({ code, stdout })))
  return { child, ended }
}

const until = async (what: string, condition: () => boolean | Promise<boolean>, limit = 60_000): Promise<void> => {
  const deadline = Date.now() + limit
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`${what} did not happen in ${limit} ms`)
    await sleep(50)
  }
}

/** Pids whose parent's chain leads to `root` and whose program is `name`. */
const descendants = (root: number, name: string): number[] => {
  const parents = new Map<number, { parent: number; name: string }>()
  for (const entry of readdirSync('/proc').filter((text) => /^\d+$/.test(text))) {
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8')
      const match = /^(\d+) \((.*)\) \S (\d+)/s.exec(stat)
      if (match !== null) parents.set(Number(match[1]), { name: match[2] ?? '', parent: Number(match[3]) })
    } catch {
      // It ended meanwhile.
    }
  }
  const under = (pid: number): boolean => {
    for (let at = parents.get(pid)?.parent; at !== undefined && at > 1; at = parents.get(at)?.parent) if (at === root) return true
    return false
  }
  return [...parents].filter(([pid, process]) => process.name === name && under(pid)).map(([pid]) => pid)
}

// The database's part is under way: some of it is written, and it is not there yet.
const partial = (world: World): boolean =>
  existsSync(world.storageDir) && readdirSync(world.storageDir, { recursive: true, encoding: 'utf8' })
    .some((name) => name.startsWith('.backupd-partial/') && (statSync(join(world.storageDir, name), { throwIfNoEntry: false })?.size ?? 0) > 500_000)
const latest = async (world: World, schedule: string): Promise<ShownExecution> => (await world.ok(['show', `latest:${schedule}`, '--json'])).json<ShownExecution>()
const nothingLeft = (t: { same(a: unknown, b: unknown, message: string): unknown }, world: World): void => {
  t.same(world.objects(), [], 'nothing is left in the storage')
}

const deferred = (): { promise: Promise<undefined>; resolve: (value: undefined) => void } => {
  let resolve: (value: undefined) => void = () => undefined
  const promise = new Promise<undefined>((done) => (resolve = done))
  return { promise, resolve }
}

t.test('pg_dump killed half-way', async (t) => {
  const world = await createWorld(t)
  await slow(world)
  const { child, ended } = start(world, ['run-now', 'slow', '--json'])
  await until('the dump', () => partial(world) && descendants(child.pid ?? 0, 'pg_dump').length > 0)
  for (const pid of descendants(child.pid ?? 0, 'pg_dump')) process.kill(pid, 'SIGKILL')
  const { code, stdout } = await ended
  t.equal(code, 1)
  t.match(JSON.parse(stdout), { error: { code: 'dump.failed' } })
  t.match(await latest(world, 'slow'), { status: 'failed', error_details: { code: 'dump.failed', stage: 'database' } })
  nothingLeft(t, world)
})

t.test('Ctrl-C', async (t) => {
  const world = await createWorld(t)
  await slow(world)
  const { child, ended } = start(world, ['run-now', 'slow', '--json'])
  await until('the dump', () => partial(world))
  child.kill('SIGINT')
  const { code, stdout } = await ended
  t.equal(code, 1)
  t.match(JSON.parse(stdout), { error: { code: 'cancelled' } })
  t.match(await latest(world, 'slow'), { status: 'cancelled' })
  nothingLeft(t, world)
  t.match(await world.sql('catalog', "SELECT last_status, total_runs, successful_runs FROM backup_schedules WHERE name = 'slow'"), [{ last_status: 'cancelled', total_runs: 1, successful_runs: 0 }])
})

t.test('the program killed: its lease runs out, and the half-made part is no backup', async (t) => {
  const world = await createWorld(t)
  await slow(world)
  const { child, ended } = start(world, ['run-now', 'slow'])
  await until('the dump', () => partial(world))
  const dumps = descendants(child.pid ?? 0, 'pg_dump')
  child.kill('SIGKILL')
  await ended
  t.notOk(world.objects().some((name) => name.endsWith('manifest.json')), 'there is no manifest')
  t.equal((await world.run(['restore', 'latest:slow', '--into', 'never'])).code, 3, 'and nothing to restore')
  await until('the end of pg_dump', () => dumps.every((pid) => !existsSync(`/proc/${pid}`)))
})

t.test('no byte for longer than the stall timeout', async (t) => {
  const world = await createWorld(t)
  await world.ok(['schedule', 'add', 'stuck', '--cron', '@daily', '--storage', 'disk', '--compression', 'zstd'])
  const first = await start(world, ['run-now', 'stuck', '--json'], { BACKUPD_STALL_TIMEOUT: '2' }).ended
  t.equal(first.code, 0, 'without a lock it works')
  const sql = connectTo(world.server.url('shop'))
  // Who wants to read the table waits, so nothing comes.
  const locked = deferred()
  const held = sql.begin(async (tx) => {
    await tx`ALTER TABLE orders ADD COLUMN later integer`
    await locked.promise
    throw new Error('rolled back')
  }).catch(() => undefined)
  await sleep(500)
  const { code, stdout } = await start(world, ['run-now', 'stuck', '--json'], { BACKUPD_STALL_TIMEOUT: '2' }).ended
  locked.resolve(undefined)
  await held
  await sql.end()
  t.equal(code, 1)
  t.match(JSON.parse(stdout), { error: { code: /pipeline\.stalled|source\.stalled/ } })
})

t.test('a full disk', { skip: process.getuid?.() === 0 ? false : 'mounting needs root' }, async (t) => {
  const world = await createWorld(t)
  const small = tempDir(t, 'small')
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', small])
  t.teardown(() => execFileSync('umount', [small]))
  await world.sql('shop', bulk)
  await world.ok(['storage', 'add', 'small', '--type', 'local', '--set', `base_path=${small}/b`])
  await world.ok(['schedule', 'add', 'full', '--cron', '@daily', '--storage', 'small', '--compression', 'none'])
  const { code, stdout } = await start(world, ['run-now', 'full', '--json']).ended
  t.equal(code, 1)
  t.match(JSON.parse(stdout), { error: { code: 'storage.disk_full' } })
  t.same(readdirSync(small, { recursive: true, encoding: 'utf8' }).filter((name) => /dump|globals|manifest/.test(name)), [], 'nothing is left')
  t.match(await latest(world, 'full'), { status: 'failed', error_details: { code: 'storage.disk_full' } })
})

t.test('a source that cannot be used', async (t) => {
  const world = await createWorld(t)
  await world.ok(['schedule', 'add', 's', '--cron', '@daily', '--storage', 'disk'])
  const cases: [string, string, number, RegExp][] = [
    ['a wrong password', world.server.url('shop', 'postgres', 'wrong-Password-9'), 4, /source\.auth/],
    ['no such database', world.server.url('nowhere'), 4, /source\.no_database/],
    ['nobody listens', 'postgres://u:p4ssword-x@127.0.0.1:1/db', 1, /source\.unreachable/],
  ]
  for (const [what, url, expected, errorCode] of cases) {
    const result = await world.run(['run-now', 's', '--json'], { env: { BACKUPD_SOURCE_URL: url } })
    t.equal(result.code, expected, what)
    t.match(result.json<{ error: { code: string } }>().error.code, errorCode)
    t.match(await latest(world, 's'), { status: 'failed', error_details: { code: errorCode } }, 'the row has the same code')
    t.notMatch(`${result.stdout}${result.stderr}`, /wrong-Password-9|p4ssword-x/)
  }
  nothingLeft(t, world)
})

t.test('the server gone half-way', async (t) => {
  const world = await createWorld(t)
  await slow(world)
  const other = await startPostgres()
  t.teardown(() => other.stop())
  const sql = connectTo(other.url())
  // More than all buffers on the way hold: a server that has sent everything may go.
  await sql.unsafe(bulk.replace('generate_series(1, 400)', 'generate_series(1, 1600)'))
  await sql.end()
  const { ended } = start(world, ['run-now', 'slow', '--json'], { BACKUPD_SOURCE_URL: other.url() })
  await until('the dump', () => partial(world))
  await other.kill9()
  const { code, stdout } = await ended
  t.equal(code, 1)
  t.match(JSON.parse(stdout), { error: { code: /dump\.failed|source\.unreachable/ } })
  t.match(await latest(world, 'slow'), { status: 'failed' })
  nothingLeft(t, world)
})

t.test('a storage that may not be written', async (t) => {
  const world = await createWorld(t)
  const blocked = join(tempDir(t, 'blocked'), 'file')
  writeFileSync(blocked, '')
  await world.ok(['storage', 'add', 'bad', '--type', 'local', '--set', `base_path=${blocked}/below`])
  await world.ok(['schedule', 'add', 'b', '--cron', '@daily', '--storage', 'bad'])
  const result = await world.run(['run-now', 'b', '--json'])
  t.not(result.code, 0)
  t.match(result.json<{ error: { code: string } }>().error.code, /^storage\./)
  t.match(await latest(world, 'b'), { status: 'failed' })
})

t.test('pg_restore fails: the new database is gone again', async (t) => {
  const world = await createWorld(t)
  await world.ok(['schedule', 'add', 's', '--cron', '@daily', '--storage', 'disk'])
  await world.ok(['run-now', 's'])
  const bin = join(tempDir(t, 'bin'), 'bin')
  mkdirSync(bin)
  const real = '/usr/lib/postgresql/15/bin'
  for (const tool of readdirSync(real).filter((name) => ['pg_dump', 'pg_dumpall', 'psql', 'pg_restore'].includes(name))) {
    // The real program, cut off in the middle of its work.
    const script = tool === 'pg_restore' ? `#!/bin/sh\ncase "$*" in *--dbname*) head -c 20000 | ${real}/pg_restore "$@";; *) exec ${real}/pg_restore "$@";; esac\n` : `#!/bin/sh\nexec ${real}/${tool} "$@"\n`
    writeFileSync(join(bin, tool), script)
    chmodSync(join(bin, tool), 0o755)
  }
  const result = await world.run(['restore', 'latest:s', '--into', 'halfway', '--json'], { env: { BACKUPD_PG_BIN: bin } })
  t.not(result.code, 0)
  t.same(await world.sql('postgres', "SELECT 1 FROM pg_database WHERE datname = 'halfway'"), [])
  t.match(await world.sql('catalog', 'SELECT status, error_message FROM recovery_executions ORDER BY id DESC LIMIT 1'), [{ status: 'failed', error_message: /pg_restore/ }])
})
