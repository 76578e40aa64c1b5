import { fileURLToPath } from 'node:url'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { createPeriodic } from '../../src/daemon/periodic.js'
import { silentLog } from '../../src/log.js'
import { daemonWorld, eventually } from './daemons.js'

t.test('clocks that are wrong do no harm: the database\'s is the one that counts', async (t) => {
  const world = await daemonWorld(t)
  const wrong = (offset: number): Record<string, string> => ({ NODE_OPTIONS: `--import=${fileURLToPath(new URL('clock.mjs', import.meta.url))}`, CLOCK_OFFSET: String(offset) })
  const daemons = [world.daemon(wrong(-86_400_000)), world.daemon(wrong(3_600_000 * 5)), world.daemon()]
  await Promise.all(daemons.map((daemon) => daemon.said('ready')))
  const id = await world.insertSchedule('often', '', { cron_expression: `'*/3 * * * * *'` })
  const nightly = await world.insertSchedule('nightly', '0 2 * * *')
  const count = async (): Promise<number> => Number((await world.rows(`SELECT count(*) AS n FROM backup_executions WHERE status = 'completed'`))[0]?.['n'])
  await eventually('four runs', async () => (await count()) >= 4)
  const rows = await world.rows(`SELECT count(*)::integer AS n, count(DISTINCT scheduled_for)::integer AS ticks, bool_and(abs(extract(epoch FROM scheduled_for - created_at)) < 15) AS near,
    bool_and(extract(second FROM scheduled_for)::integer % 3 = 0) AS exact, bool_or(status = 'failed') AS failed FROM backup_executions WHERE schedule_id = ${id}`)
  t.match(rows, [{ near: true, exact: true, failed: false }])
  t.equal(rows[0]?.['n'], rows[0]?.['ticks'], 'each tick once')
  t.match(await world.rows(`SELECT next_run_at > now() AND next_run_at < now() + interval '1 day' AS right FROM backup_schedules WHERE id = ${nightly}`), [{ right: true }])
  t.equal((await world.rows(`SELECT id FROM backup_workers WHERE lease_expires_at BETWEEN now() AND now() + interval '31 seconds'`)).length, 3)
  for (const daemon of daemons) t.equal((await daemon.get('/readyz')).status, 200)
})

t.test('periodic work goes on when the clock on the wall is put back', async (t) => {
  const RightDate = Date
  let offset = 0
  globalThis.Date = class extends RightDate {
    constructor(...given: ConstructorParameters<typeof Date> | []) {
      if (given.length === 0) super(RightDate.now() + offset)
      else super(...given)
    }

    static override now(): number {
      return RightDate.now() + offset
    }
  } as DateConstructor
  t.teardown(() => {
    globalThis.Date = RightDate
  })
  let ticks = 0
  const periodic = createPeriodic(silentLog())
  t.teardown(() => periodic.stop())
  periodic.every(1, 'tick', () => void (ticks += 1))
  await wait(2_500)
  t.ok(ticks >= 1)
  offset = -3_600_000
  await wait(7_000)
  const before = ticks
  await wait(3_000)
  t.ok(ticks - before >= 2, `${ticks - before} in 3 s`)
  offset = 7_200_000
  await wait(7_000)
  const later = ticks
  await wait(3_000)
  t.ok(ticks - later >= 2, `${ticks - later} in 3 s, after it was put forward`)
})
