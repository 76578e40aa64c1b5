import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { daemonWorld, eventually, slow } from './daemons.js'

// In real time: leases last 30 s, and nothing here makes them shorter.
t.test('a daemon that is killed, and one that freezes, lose their work to another', async (t) => {
  const world = await daemonWorld(t)
  const env = { BACKUPD_CONCURRENCY: '1' }
  const first = world.daemon(env)
  const second = world.daemon(env)
  await Promise.all([first.said('ready'), second.said('ready')])
  for (const name of ['one', 'two']) {
    await world.insertSchedule(name, '0 3 1 1 *', { ...slow, next_run_at: 'now()', backup_type: `'full'` })
  }
  const running = await eventually('two runs', async () => {
    const rows = await world.rows(`SELECT id, backup_id, worker_id, schedule_id FROM backup_executions WHERE status = 'running' AND progress ->> 'stage' = 'database' ORDER BY id`)
    return rows.length === 2 ? rows : undefined
  })
  t.not(running[0]?.['worker_id'], running[1]?.['worker_id'], 'the work was spread')
  const third = world.daemon({ BACKUPD_CONCURRENCY: '2' })
  await third.said('ready')
  const folders = running.map((row) => String(row['backup_id']))
  t.ok(folders.every((folder) => world.objects().some((path) => path.startsWith(folder))), 'each has stored something')

  const frozen = Number(String(running[0]?.['worker_id']).split(':')[1]) === first.pid ? first : second
  const killed = frozen === first ? second : first
  process.kill(frozen.pid, 'SIGSTOP')
  await killed.end('SIGKILL')
  const failed = await eventually('both found lost', async () => {
    const rows = await world.rows(`SELECT id, status, error_message, error_details FROM backup_executions WHERE status = 'failed' ORDER BY id`)
    return rows.length === 2 ? rows : undefined
  }, 75_000)
  for (const row of failed) {
    t.match(row, { error_message: /the daemon that ran it is gone: .* has not renewed its lease/, error_details: { code: 'lease.expired', stage: 'database' } })
  }
  const retries = await world.rows(`SELECT retry_of, attempt, status, triggered_by FROM backup_executions WHERE retry_of IS NOT NULL ORDER BY retry_of`)
  t.match(retries, running.map(({ id }) => ({ retry_of: id, attempt: 2, triggered_by: 'schedule' })))
  await eventually('what they stored is removed', async () => !world.objects().some((path) => folders.some((folder) => path.startsWith(folder))))
  t.match(await world.rows(`SELECT failed_runs, total_runs, last_status FROM backup_schedules`), [1, 2].map(() => ({ failed_runs: 1, total_runs: 1, last_status: 'failed' })))
  t.match((await third.get('/metrics')).text, /backupd_failures_total\{schedule="(one|two)",id="\d+",code="lease.expired"\} 1/)

  // It wakes up in the middle of its backup, and nothing is slow any more.
  await world.rows(`UPDATE backup_schedules SET bandwidth_limit_mbps = NULL`)
  process.kill(frozen.pid, 'SIGCONT')
  await frozen.said('backup failed')
  await wait(500)
  t.match(await world.rows(`SELECT id, status, error_details FROM backup_executions WHERE id = ${String(running[0]?.['id'])}`), [{ status: 'failed', error_details: { code: 'lease.expired' } }], 'it changed nothing')
  t.notOk(world.objects().some((path) => folders.some((folder) => path.startsWith(folder))), 'and left nothing')

  // The second attempts wait for their time; there is no need to.
  await world.rows(`UPDATE backup_executions SET not_before = now() WHERE status = 'pending'`)
  const good = await eventually('the second attempts', async () => {
    const rows = await world.rows(`SELECT backup_id, attempt FROM backup_executions WHERE status = 'completed'`)
    return rows.length === 2 ? rows : undefined
  })
  t.match(good, [{ attempt: 2 }, { attempt: 2 }])
  // What the killed process had not finished writing is no object; the sweep of the storage removes it after a day.
  t.strictSame([...new Set(world.objects().map((path) => path.split('/')[0]))].filter((folder) => folder !== '.backupd-partial').sort(), good.map((row) => String(row['backup_id'])).sort(), 'two folders, both good')
  t.match(await world.rows(`SELECT successful_runs, failed_runs, total_runs, last_status FROM backup_schedules`),
    [1, 2].map(() => ({ successful_runs: 1, failed_runs: 1, total_runs: 2, last_status: 'completed' })))
  t.equal(await frozen.end(), 0)
  t.equal(await third.end(), 0)
  t.strictSame(await world.rows(`SELECT id FROM backup_workers WHERE lease_expires_at > now()`), [], 'both have signed off')
})
