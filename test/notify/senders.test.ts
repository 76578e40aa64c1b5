import t from 'tap'
import { claimNotification, markSent } from '../../src/catalog/outbox.js'
import { deliverDue } from '../../src/operation/alerts/deliver.js'
import { newWorkerId } from '../../src/operation/environment.js'
import { shelf } from '../operation/retained.js'
import { startPostgres } from '../support/postgres-server.js'
import { startReceiver } from './receiver.js'

const server = await startPostgres()
t.teardown(() => server.stop())
const { env, sql } = await shelf(t, server)
const receiver = await startReceiver(t)
const never = new AbortController().signal
const queue = (notifier: number, key: string, count: number) => sql(`INSERT INTO backup_notifications (notifier_id, event, severity, dedup_key, payload, status)
  SELECT ${notifier}, 'failure', 'critical', '${key}' || i, '{"title": "it failed"}', 'pending' FROM generate_series(1, ${count}) i`)
for (const name of ['one', 'two', 'three']) await sql(`INSERT INTO backup_notifiers (name, type, config) VALUES ('${name}', 'webhook', '{"url": "${receiver.url}/${name}"}')`)

t.test('two senders at once send each notification once', async (t) => {
  for (const id of [1, 2, 3]) await queue(id, 'both', 8)
  const senders = [env, { ...env, workerId: newWorkerId() }]
  const sent = await Promise.all(senders.map((sender) => deliverDue(sender, never)))
  t.equal(sent.reduce((a, b) => a + b), 24)
  const deliveries = receiver.received.map(({ headers }) => headers['x-backupd-delivery'])
  t.equal(deliveries.length, 24)
  t.equal(new Set(deliveries).size, 24)
  t.strictSame(await sql('SELECT DISTINCT status, attempts FROM backup_notifications'), [{ status: 'sent', attempts: 1 }])
})

t.test('what a sender that is gone had claimed is sent by another when the lease is over', async (t) => {
  await queue(1, 'left', 1)
  receiver.received.length = 0
  const gone = await claimNotification(env.catalog.db, 'gone', 60_000)
  if (gone === undefined) throw new Error('nothing was claimed')
  t.equal(await deliverDue(env, never), 0, 'not while the lease lasts')
  await sql(`UPDATE backup_notifications SET lease_expires_at = now() - interval '1 second' WHERE status = 'sending'`)
  t.equal(await deliverDue(env, never), 1)
  t.equal(receiver.received.length, 1)
  await markSent(env.catalog.db, gone)
  t.strictSame(await sql(`SELECT status, attempts, worker_id FROM backup_notifications WHERE dedup_key = 'left1'`), [{ status: 'sent', attempts: 2, worker_id: null }])
})
