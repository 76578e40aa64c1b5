import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { programPath } from '../support/cli.js'
import { daemonWorld, eventually, slow, type DaemonWorld } from './daemons.js'

const world: DaemonWorld = await daemonWorld(t)
const quick = await world.insertSchedule('quick', '0 3 1 1 *')
const long = await world.insertSchedule('long', '0 3 1 1 *', slow)

interface Live {
  output(): string
  code: Promise<number | null>
  signal(name: NodeJS.Signals): void
}

/** The program, to be watched and interrupted while it runs. */
const start = (...args: string[]): Live => {
  const child = spawn(process.execPath, [programPath(), ...args], { env: { PATH: process.env['PATH'] ?? '', HOME: '/nonexistent', ...world.env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (block: Buffer) => (output += block.toString()))
  t.teardown(() => child.kill('SIGKILL'))
  return { output: () => output, code: once(child, 'exit').then(([code]) => code as number | null), signal: (name) => void child.kill(name) }
}
const statusOf = async (schedule: number): Promise<string> =>
  String((await world.rows(`SELECT status FROM backup_executions WHERE schedule_id = ${schedule} ORDER BY id DESC LIMIT 1`))[0]?.['status'])
const runs = (schedule: number) => eventually('it runs', async () => (await statusOf(schedule)) === 'running')

t.test('without a daemon', async (t) => {
  const refused = await world.run(['run-now', 'quick', '--detach', '--json'])
  t.equal(refused.code, 1)
  t.match(refused.json(), { error: { code: 'daemon.none', hint: /backupd daemon/ } })
  t.strictSame(await world.rows('SELECT id FROM backup_executions'), [], 'and nothing is queued')
  t.match((await world.ok(['run-now', 'quick', '--json'])).json(), { status: 'completed', triggered_by: 'manual' })
  t.match((await world.ok(['status'])).stdout, /no daemon is running: schedules are not kept[\s\S]*nothing is running[\s\S]*quick +not known yet +completed \d+ s ago/)
})

t.test('with one', async (t) => {
  const daemon = world.daemon({ BACKUPD_DRAIN_TIMEOUT: '1' })
  await daemon.said('ready')

  t.test('it does the work, and the result comes here', async (t) => {
    const done = await world.ok(['run-now', 'quick', '--json'])
    const row = done.json<{ id: number; worker_id: string; status: string }>()
    t.match(row, { status: 'completed', worker_id: new RegExp(`:${daemon.pid}:`) })
    t.match(await daemon.line(({ execution, msg }) => execution === row.id && msg === 'backup completed'), {})
  })

  t.test('a failure comes with its reason and its exit code', async (t) => {
    await world.rows(`UPDATE backup_schedules SET backup_type = 'files_only' WHERE id = ${quick}`)
    const refused = await world.run(['run-now', 'quick', '--json'])
    t.match([refused.code, refused.json()], [2, { error: { code: 'schedule.backup_type' } }])
    await world.rows(`UPDATE backup_schedules SET backup_type = 'full', encrypt_backup = true WHERE id = ${quick}`)
    const failed = await world.run(['run-now', 'quick', '--json'])
    t.match([failed.code, failed.json()], [4, { error: { code: 'key.none' } }])
    await world.rows(`UPDATE backup_schedules SET encrypt_backup = false WHERE id = ${quick}`)
    t.equal((await world.rows(`SELECT 1 FROM backup_executions WHERE status = 'pending'`)).length, 0, 'what cannot end otherwise is not tried again')
  })

  t.test('detached, looked at, and cancelled', async (t) => {
    const { id } = (await world.ok(['run-now', 'long', '--detach', '--json'])).json<{ id: number }>()
    await runs(long)
    const busy = await world.run(['run-now', 'long', '--json'])
    t.match([busy.code, busy.json()], [1, { error: { code: 'schedule.busy', details: { execution_id: id } } }])
    await eventually('progress', async () => (await world.rows(`SELECT 1 FROM backup_executions WHERE id = ${id} AND progress ->> 'stage' = 'database'`)).length === 1)
    const screen = (await world.ok(['status'])).stdout
    t.match(screen, new RegExp(`${daemon.pid} .*running +1 of 2 +127\\.0\\.0\\.1:`))
    t.match(screen, new RegExp(`${id} +long +running +1 +database, [\\d.]+ \\w+ read`))
    t.match((await world.ok(['status', '--json'])).json(), {
      daemons: [{ pid: daemon.pid, state: 'running' }], executions: [{ id, status: 'running', progress: { stage: 'database' } }],
      schedules: [{ name: 'long' }, { name: 'quick', last_status: 'failed', last_error: /there is no key/ }],
    })
    const began = performance.now()
    t.match((await world.ok(['cancel', String(id), '--json'])).json(), { id })
    await eventually('its end', async () => (await statusOf(long)) === 'cancelled')
    t.ok(performance.now() - began < 5_000, 'at once')
    const again = await world.run(['cancel', String(id), '--json'])
    t.match([again.code, again.json()], [1, { error: { code: 'execution.ended', details: { status: 'cancelled' } } }])
    const missing = await world.run(['cancel', '99999', '--json'])
    t.match([missing.code, missing.json()], [3, { error: { code: 'execution.not_found' } }])
    t.match(await world.rows(`SELECT event_type FROM backup_audit_logs WHERE event_type = 'backup.cancel_requested'`), [{}])
    t.equal((await world.rows(`SELECT 1 FROM backup_executions WHERE status = 'pending'`)).length, 0, 'a cancelled one is not tried again')
  })

  t.test('Ctrl-C asks the daemon to cancel', async (t) => {
    const live = start('run-now', 'long')
    await runs(long)
    await wait(500)
    live.signal('SIGINT')
    t.equal(await live.code, 1)
    t.match(live.output(), /cancelled on request/)
    t.equal(await statusOf(long), 'cancelled')
  })

  t.test('a daemon that is stopped hands the work on, and it is followed there', async (t) => {
    await world.rows(`UPDATE backup_schedules SET bandwidth_limit_mbps = 1 WHERE id = ${long}`)
    const live = start('run-now', 'long', '--json')
    await runs(long)
    await world.rows(`UPDATE backup_schedules SET bandwidth_limit_mbps = NULL WHERE id = ${long}`)
    const successor = world.daemon()
    await successor.said('ready')
    t.equal(await daemon.end(), 0)
    t.equal(await live.code, 0)
    t.match(live.output(), /ended: the daemon was stopped while this run was going on.*it is tried again as execution \d+/)
    t.match(live.output(), new RegExp(`"worker_id": ".*:${successor.pid}:`))
    t.match(await world.rows(`SELECT status, attempt FROM backup_executions WHERE schedule_id = ${long} ORDER BY id DESC LIMIT 2`), [{ status: 'completed', attempt: 2 }, { status: 'failed', attempt: 1 }])
    await successor.end()
  })
})
