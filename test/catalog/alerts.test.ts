import { sql as raw } from '../../src/catalog/drizzle.js'
import t from 'tap'
import { raiseAlert, resolveAlert, type Alert } from '../../src/catalog/alerts.js'
import type { Catalog } from '../../src/catalog/connect.js'
import { insertSchedule } from '../../src/catalog/schedules.js'
import { backupNotifiers } from '../../src/catalog/schema.js'
import { insertStorage } from '../../src/catalog/storages.js'
import { Secret } from '../../src/secret.js'
import { catalogOn, serverFor } from './server.js'

const server = await serverFor(t)

const trouble: Alert = { event: 'unhealthy', severity: 'critical', title: 'storage disk is not healthy', message: 'it is full', dedupKey: 'storage:1:unhealthy' }

const notifier = async ({ db }: Catalog, name: string, more: Partial<typeof backupNotifiers.$inferInsert> = {}): Promise<number> => {
  const [row] = await db.insert(backupNotifiers).values({ name, type: 'webhook', config: {}, ...more }).returning()
  return row?.id ?? 0
}
const queued = async ({ db }: Catalog): Promise<string[]> => {
  const rows = await db.execute<{ name: string; event: string }>(raw`SELECT f.name, n.event FROM backup_notifications n JOIN backup_notifiers f ON f.id = n.notifier_id ORDER BY n.id`)
  return rows.map(({ name, event }) => `${name} ${event}`)
}
const age = ({ db }: Catalog, seconds: number) => db.execute(raw`UPDATE backup_notifications SET created_at = created_at - make_interval(secs => ${seconds}::float8), status = 'sent'`)

t.test('filters by event, severity, schedule, and the schedules of a storage', async (t) => {
  const catalog = await catalogOn(t, server)
  const disk = await insertStorage(catalog.db, { name: 'disk', backend_type: 'local', config_data: {} })
  const schedule = await insertSchedule(catalog.db, { name: 'nightly', cron_expression: '@daily', backup_type: 'full', storage_backend_id: disk.id })
  await notifier(catalog, 'all')
  await notifier(catalog, 'off', { is_active: false })
  await notifier(catalog, 'critical', { min_severity: 'critical' })
  await notifier(catalog, 'nightly', { schedules: ['nightly'] })
  await notifier(catalog, 'weekly', { schedules: ['weekly'] })
  await notifier(catalog, 'starts', { events: ['start'] })
  await notifier(catalog, 'ping', { type: 'healthchecks' })
  await notifier(catalog, 'nonsense', { events: 'x', schedules: 7, min_severity: 'loud' })
  const raised = async (alert: Partial<Alert>): Promise<string[]> => {
    await catalog.db.execute(raw`DELETE FROM backup_notifications`)
    const count = await raiseAlert(catalog.db, { ...trouble, ...alert })
    const names = (await queued(catalog)).map((text) => text.split(' ')[0] ?? '')
    t.equal(count, names.length)
    return names
  }
  const about = { schedule: { id: schedule.id, name: 'nightly' } }
  t.strictSame(await raised({ ...about, event: 'failure' }), ['all', 'critical', 'nightly', 'ping', 'nonsense'])
  t.strictSame(await raised({ ...about, event: 'failure', severity: 'warning' }), ['all', 'nightly', 'ping', 'nonsense'])
  t.strictSame(await raised({ ...about, event: 'start', severity: 'info' }), ['starts', 'ping'], 'routine goes to who asks for it')
  t.strictSame(await raised({ ...about, event: 'overdue' }), ['all', 'critical', 'nightly', 'nonsense'])
  t.strictSame(await raised({ storage: { id: disk.id, name: 'disk' } }), ['all', 'critical', 'nightly', 'nonsense'], 'a schedule cares for its storage')
  t.strictSame(await raised({ storage: { id: 4711, name: 'other' } }), ['all', 'critical', 'nonsense'])
  t.strictSame(await raised({}), ['all', 'critical', 'nonsense'])
})

t.test('tells a condition once, again after its interval, and again after its end', async (t) => {
  const catalog = await catalogOn(t, server)
  await notifier(catalog, 'all')
  await notifier(catalog, 'critical', { min_severity: 'critical' })
  const again = () => raiseAlert(catalog.db, { ...trouble, repeatAfter: 3600 })
  t.equal(await again(), 2)
  t.equal(await again(), 0)
  await age(catalog, 3500)
  t.equal(await again(), 0)
  await age(catalog, 200)
  t.equal(await again(), 2, 'told again')
  t.equal((await queued(catalog)).length, 2, 'in the same rows')
  t.equal((await catalog.db.execute(raw`SELECT 1 FROM backup_notifications WHERE status = 'pending' AND attempts = 0`)).length, 2)

  const over = { ...trouble, event: 'recovery', severity: 'info', resolves: trouble.dedupKey, dedupKey: 'storage:1:healthy', repeatAfter: 0 } as const
  t.equal(await resolveAlert(catalog.db, over), 2, 'who was told of the trouble is told of its end, whatever the severity')
  t.equal(await resolveAlert(catalog.db, over), 0, 'once')
  t.equal(await again(), 2, 'back at once')
  t.equal(await resolveAlert(catalog.db, { ...over, resolves: 'storage' }), 2, 'all keys below')
  t.equal(await raiseAlert(catalog.db, { ...trouble, dedupKey: 'once', repeatAfter: null }), 2)
  await age(catalog, 1e9)
  t.equal(await raiseAlert(catalog.db, { ...trouble, dedupKey: 'once', repeatAfter: null }), 0)
})

t.test('a ping is told of every run', async (t) => {
  const catalog = await catalogOn(t, server)
  await notifier(catalog, 'ping', { type: 'healthchecks' })
  await notifier(catalog, 'chat')
  const failed = (id: number) => raiseAlert(catalog.db, { ...trouble, event: 'failure', dedupKey: 'schedule:1:failed', execution: { id, backup_id: `b${id}`, status: 'failed' } })
  t.equal(await failed(1), 2)
  t.equal(await failed(2), 1)
  t.strictSame(await queued(catalog), ['ping failure', 'chat failure', 'ping failure'])
})

t.test('nothing that happens to an alert happens to its caller', async (t) => {
  const catalog = await catalogOn(t, server)
  const id = await notifier(catalog, 'all')
  await t.test('an alert that cannot be stored', async (t) => {
    const circular: Record<string, unknown> = {}
    circular['self'] = circular
    await catalog.db.transaction(async (tx) => {
      t.equal(await raiseAlert(tx, { ...trouble, details: circular }), 0)
      await tx.execute(raw`CREATE TABLE written (i integer)`)
    })
    await catalog.db.execute(raw`ALTER TABLE backup_notifications ADD CONSTRAINT full_up CHECK (id < 0) NOT VALID`)
    await catalog.db.transaction(async (tx) => {
      t.equal(await raiseAlert(tx, trouble), 0)
      await tx.execute(raw`INSERT INTO written VALUES (1)`)
    })
    await catalog.db.execute(raw`ALTER TABLE backup_notifications DROP CONSTRAINT full_up`)
    t.equal((await catalog.db.execute(raw`SELECT * FROM written`)).length, 1)
  })
  await t.test('a lock that somebody holds', async (t) => {
    let letGo = (): void => undefined
    const holding = new Promise<void>((resolve) => (letGo = resolve))
    let locked = (): void => undefined
    const isLocked = new Promise<void>((resolve) => (locked = resolve))
    const holder = catalog.db.transaction(async (tx) => {
      await tx.execute(raw`SELECT 1 FROM backup_notifiers WHERE id = ${id} FOR UPDATE`)
      locked()
      await holding
    })
    await isLocked
    const began = performance.now()
    await catalog.db.transaction(async (tx) => {
      t.equal(await raiseAlert(tx, trouble), 0)
      await tx.execute(raw`INSERT INTO written VALUES (2)`)
      const [row] = await tx.execute<{ value: string }>(raw`SELECT current_setting('lock_timeout') AS value`)
      t.equal(row?.value, '0', 'the limit is for the alert alone')
    })
    t.ok(performance.now() - began < 5_000)
    letGo()
    await holder
    t.equal((await catalog.db.execute(raw`SELECT * FROM written`)).length, 2)
  })
  t.test('its transaction undone, there is no alert either', async (t) => {
    await t.rejects(catalog.db.transaction(async (tx) => {
      t.equal(await raiseAlert(tx, trouble), 1)
      const [row] = await tx.execute<{ value: string }>(raw`SELECT current_setting('lock_timeout') AS value`)
      t.equal(row?.value, '0')
      throw new Error('undone')
    }), /undone/)
    t.strictSame(await queued(catalog), [])
  })
})

t.test('keeps secrets out, and long texts within bounds', async (t) => {
  const catalog = await catalogOn(t, server)
  await notifier(catalog, 'all')
  new Secret('hunter2-hunter2')
  await raiseAlert(catalog.db, {
    ...trouble, title: `a\nb ${'x'.repeat(500)}`, message: `password hunter2-hunter2 ${'y'.repeat(5000)}`, details: { deep: [{ url: 'postgres://u:pw1234@h/d', said: 'hunter2-hunter2' }] },
  })
  const [row] = await catalog.db.execute<{ payload: { title: string; message: string } }>(raw`SELECT payload FROM backup_notifications`)
  const text = JSON.stringify(row)
  t.notMatch(text, /hunter2|pw1234/)
  t.match(row?.payload.title, /^a b x+$/)
  t.ok((row?.payload.message.length ?? 0) <= 2000)
})
