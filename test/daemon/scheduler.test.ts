import t from 'tap'
import { readConfig } from '../../src/config.js'
import type { Catalog } from '../../src/catalog/connect.js'
import { lookAround } from '../../src/catalog/attention.js'
import { listExecutions, type Execution } from '../../src/catalog/executions.js'
import { listSchedules, type Schedule } from '../../src/catalog/schedules.js'
import { fireDue } from '../../src/daemon/schedule.js'
import { silentLog } from '../../src/log.js'
import type { Environment } from '../../src/operation/environment.js'
import { applicationDdl } from '../catalog/application.js'
import { catalogOn, never, serverFor } from '../catalog/server.js'

const server = await serverFor(t)

const environment = (catalog: Catalog, variables: Record<string, string> = {}): Environment => ({
  config: readConfig({ BACKUPD_STATE_DIR: '/nonexistent', ...variables }), catalog, log: silentLog(), workerId: `test ${Math.random()}`, signal: never,
  actor: { username: 'test', host: 'test' },
})

const insert = async ({ sql }: Catalog, name: string, cron: string, more: Record<string, string> = {}): Promise<number> => {
  await sql`INSERT INTO storage_backend_configs (name, backend_type, config_data) SELECT 'disk', 'local', '{"base_path": "/nonexistent"}' WHERE NOT EXISTS (SELECT FROM storage_backend_configs)`
  const columns: Record<string, string> = { name: `'${name}'`, cron_expression: `'${cron}'`, backup_type: `'full'`, storage_backend_id: '1', ...more }
  const [row] = await sql.unsafe(`INSERT INTO backup_schedules (${Object.keys(columns).join(', ')}) VALUES (${Object.values(columns).join(', ')}) RETURNING id`)
  return Number(row?.['id'])
}

const scheduleOf = async ({ db }: Catalog, id: number): Promise<Schedule> => {
  const row = (await listSchedules(db)).find((one) => one.id === id)
  if (row === undefined) throw new Error(`no schedule ${id}`)
  return row
}
const runsOf = ({ db }: Catalog, id: number): Promise<Execution[]> => listExecutions(db, { schedule: id })
const events = async ({ sql }: Catalog, type: string): Promise<string[]> => (await sql`SELECT resource_name FROM backup_audit_logs WHERE event_type = ${type}`).map((row) => String(row['resource_name']))

for (const [kind, ddl] of [['of its own', ''], ['adopted', applicationDdl('nine')]] as const) {
  t.test(`rows written by plain SQL, in a catalog ${kind}`, async (t) => {
    const catalog = await catalogOn(t, server, ddl)
    const env = environment(catalog)
    const fresh = await insert(catalog, 'fresh', '0 2 * * *', { timezone: `'Europe/Berlin'` })
    const wrong = await insert(catalog, 'wrong', 'every day')
    const nowhere = await insert(catalog, 'nowhere', '0 2 * * *', { timezone: `'Mars/Olympus'` })
    t.equal((await lookAround(catalog.db)).schedules, true)
    t.match(await fireDue(env), { seen: 3, fired: 0 })
    t.equal((await lookAround(catalog.db)).schedules, false, 'and then there is nothing to look at')
    t.match(await scheduleOf(catalog, fresh), { next_run_for: '0 2 * * * Europe/Berlin', last_status: null })
    t.equal((await scheduleOf(catalog, fresh)).next_run_at?.getUTCHours(), new Date().getMonth() > 2 && new Date().getMonth() < 9 ? 0 : 1)
    for (const id of [wrong, nowhere]) t.match(await scheduleOf(catalog, id), { next_run_at: null, last_status: 'failed' })
    t.strictSame((await events(catalog, 'schedule.invalid')).sort(), ['nowhere', 'wrong'], 'said once')
    await fireDue(env)
    t.equal((await events(catalog, 'schedule.invalid')).length, 2)

    // Changed by plain SQL, and put right.
    await catalog.sql`UPDATE backup_schedules SET cron_expression = '0 5 * * *', timezone = 'UTC' WHERE id IN (${fresh}, ${wrong})`
    t.match(await fireDue(env), { seen: 2, fired: 0 })
    for (const id of [fresh, wrong]) t.equal((await scheduleOf(catalog, id)).next_run_at?.getUTCHours(), 5)

    // Taken away, as some programs do on every save.
    await catalog.sql`UPDATE backup_schedules SET next_run_at = NULL WHERE id = ${fresh}`
    await fireDue(env)
    t.equal((await scheduleOf(catalog, fresh)).next_run_at?.getUTCHours(), 5)

    // Switched off with a run that waits, and on again: nothing is made up for.
    await catalog.sql`UPDATE backup_schedules SET next_run_at = now() - interval '1 second' WHERE id = ${fresh}`
    t.match(await fireDue(env), { fired: 1 })
    await catalog.sql`UPDATE backup_schedules SET is_active = false WHERE id = ${fresh}`
    await fireDue(env)
    t.match(await scheduleOf(catalog, fresh), { next_run_at: null })
    t.match(await runsOf(catalog, fresh), [{ status: 'cancelled', error_message: /switched off/ }])
    await catalog.sql`UPDATE backup_schedules SET is_active = true WHERE id = ${fresh}`
    t.match(await fireDue(env), { fired: 0 })

    // A time that another program has set is taken at its word.
    const asked = await insert(catalog, 'asked', '0 2 * * *', { next_run_at: 'now()' })
    t.match(await fireDue(env), { fired: 1 })
    t.match(await runsOf(catalog, asked), [{ status: 'pending', triggered_by: 'schedule', attempt: 1 }])
  })
}

t.test('what is due is queued, and missed runs are made up for once', async (t) => {
  const catalog = await catalogOn(t, server)
  const env = environment(catalog)
  const late = await insert(catalog, 'late', '*/10 * * * *', { next_run_at: `date_trunc('hour', now()) - interval '5 hours'` })
  const lost = await insert(catalog, 'lost', '0 0 1 1 *', { next_run_at: `'2024-01-01T00:00:00Z'` })
  t.match(await fireDue(env), { seen: 2, fired: 1 })
  const [run, ...others] = await runsOf(catalog, late)
  t.strictSame(others, [])
  t.match(run, { warnings: [/^made up for 3\d runs missed since /] })
  t.ok((run?.scheduled_for?.getTime() ?? 0) > Date.now() - 601_000, 'the newest one')
  t.strictSame(await runsOf(catalog, lost), [])
  t.strictSame(await events(catalog, 'schedule.missed'), ['lost'])
  t.ok(((await scheduleOf(catalog, lost)).next_run_at ?? 0) > new Date())
})

for (const ddl of ['', applicationDdl('nine')]) t.test('a run that comes due while the last one is there is not started beside it', async (t) => {
  const catalog = await catalogOn(t, server, ddl)
  const env = environment(catalog)
  const id = await insert(catalog, 'often', '* * * * *', { next_run_at: 'now()' })
  await fireDue(env)
  await catalog.sql`UPDATE backup_executions SET scheduled_for = scheduled_for - interval '1 hour', status = 'running', warnings = '["mine"]'`
  for (let time = 0; time < 3; time += 1) {
    await catalog.sql`UPDATE backup_schedules SET next_run_at = now()`
    t.match(await fireDue(env), { fired: 0 })
  }
  t.match(await runsOf(catalog, id), [{ status: 'running', warnings: ['mine', /^a run came due while this one was running, at .* was not started beside it$/] }])
  t.strictSame(await events(catalog, 'schedule.coalesced'), ['often'], 'one word for all of them')
  t.equal((await runsOf(catalog, id))[0]?.warnings instanceof Array && ((await runsOf(catalog, id))[0]?.warnings as unknown[]).length, 2)
})

t.test('what the catalog refuses of one keeps no other from running', async (t) => {
  const catalog = await catalogOn(t, server)
  await insert(catalog, 'good', '0 2 * * *', { next_run_at: 'now()' })
  await catalog.sql.unsafe(`ALTER TABLE backup_schedules DROP CONSTRAINT backup_schedules_storage_backend_id_fkey`)
  const bad = await insert(catalog, 'bad', '0 2 * * *', { next_run_at: `now() - interval '1 second'`, storage_backend_id: '4711' })
  t.match(await fireDue(environment(catalog)), { seen: 2, fired: 1 })
  t.match(await scheduleOf(catalog, bad), { last_status: 'failed', next_run_at: null })
  t.strictSame(await events(catalog, 'schedule.invalid'), ['bad'])
})

t.test('many daemons at once: each tick fires once', async (t) => {
  const first = await catalogOn(t, server)
  for (let n = 0; n < 120; n += 1) await insert(first, `s${n}`, '*/5 * * * *', { next_run_at: `date_trunc('minute', now())` })
  const env = environment(first)
  const results = await Promise.all(Array.from({ length: 8 }, async () => {
    let fired = 0
    for (let round = 0; round < 40; round += 1) fired += (await fireDue(env)).fired
    return fired
  }))
  t.equal(results.reduce((sum, fired) => sum + fired, 0), 120)
  t.strictSame([...await first.sql`SELECT count(*) AS n, count(DISTINCT schedule_id) AS schedules FROM backup_executions`], [{ n: 120, schedules: 120 }])
})
