import * as fc from 'fast-check'
import t from 'tap'
import { listAudit, readAudit, writeAudit, type AuditEvent } from '../../src/audit/audit.js'
import { canonicalJson, linkOf } from '../../src/audit/entry.js'
import { verifyAudit } from '../../src/audit/verify.js'
import { openCatalog, type Catalog } from '../../src/catalog/connect.js'
import { silentLog } from '../../src/log.js'
import { Secret } from '../../src/secret.js'
import { applicationDdl } from '../catalog/application.js'
import { catalogOn, serverFor } from '../catalog/server.js'

const server = await serverFor(t)

const event = (more: Partial<AuditEvent> = {}): AuditEvent => ({
  event_type: 'schedule.created', event_category: 'configuration', action: 'create', actor: { username: 'ann', host: 'h1' },
  resource: { type: 'schedule', id: 7, name: 'nightly' }, after: { jobs: 2, ratio: 1.5, big: 1e21, nested: { b: [1, null, 'x'], a: true } }, ...more,
})

const foreign = (catalog: Catalog, data: string | null = null) => catalog.sql`
  INSERT INTO backup_audit_logs (audit_id, event_type, event_category, action, status, risk_level, event_data)
  VALUES (gen_random_uuid()::text, 'theirs', 'access', 'view', 'success', 'low', ${data})`

for (const [kind, ddl] of [['jsonb', ''], ['json', applicationDdl('nine')]] as const) {
  t.test(`a chain in ${kind} columns`, async (t) => {
    const catalog = await catalogOn(t, server, ddl)
    const write = async (n: number): Promise<void> => {
      await catalog.sql`TRUNCATE backup_audit_logs, backup_audit_chain RESTART IDENTITY`
      for (let i = 0; i < n; i += 1) await writeAudit(catalog.db, event({ resource: { type: 'schedule', id: i, name: `s${i}` } }))
    }

    t.test('is whole when nothing was touched', async (t) => {
      await write(3)
      await foreign(catalog)
      await foreign(catalog, '{"chain": "theirs"}')
      await foreign(catalog, '[1]')
      await writeAudit(catalog.db, event({ event_type: 'backup.completed', event_category: 'backup', action: 'execute', status: 'failure', risk_level: 'high' }))
      const result = await verifyAudit(catalog.db)
      t.match(result, { ok: true, checked: 4, foreign: 3, head: { seq: 4, hash: /^[0-9a-f]{64}$/ } })
      const [last, , , , third] = await listAudit(catalog.db)
      t.match(last, { username: 'ann', event_type: 'backup.completed', status: 'failure', risk_level: 'high', event_data: { host: 'h1' } })
      t.equal(last === undefined ? undefined : linkOf(last)?.prev, third === undefined ? undefined : linkOf(third)?.hash)
      t.equal((await listAudit(catalog.db, { category: 'backup' })).length, 1)
      t.equal((await listAudit(catalog.db, { resource: { type: 'schedule', name: 's1' } })).length, 1)
      t.strictSame((await listAudit(catalog.db, { before: 3, limit: 1 })).map(({ id }) => id), [2])
      const ids = []
      for await (const { id } of readAudit(catalog.db)) ids.push(id)
      t.strictSame(ids, [1, 2, 3, 4, 5, 6, 7])
    })

    t.test('shows what was done to it', async (t) => {
      const set = (text: string) => (catalog: Catalog) => catalog.sql.unsafe(`UPDATE backup_audit_logs SET ${text} WHERE id = 2`)
      const json = kind
      const ways: [string, (catalog: Catalog) => Promise<unknown>, object][] = [
        ['status', set(`status = 'warning'`), { reason: 'changed', id: 2, seq: 2 }],
        ['user', set(`username = 'eve'`), { reason: 'changed', id: 2 }],
        ['user id', set('user_ip = \'10.0.0.1\''), { reason: 'changed', id: 2 }],
        ['time', set(`created_at = created_at + interval '1 millisecond'`), { reason: 'changed', id: 2 }],
        ['after', set(`after_state = jsonb_set(after_state::jsonb, '{jobs}', '3')::${json}`), { reason: 'changed', id: 2 }],
        ['data', set(`event_data = jsonb_set(event_data::jsonb, '{host}', '"h2"')::${json}`), { reason: 'changed', id: 2 }],
        ['number', set(`event_data = jsonb_set(event_data::jsonb, '{chain,seq}', '9')::${json}`), { reason: 'changed', id: 2 }],
        ['no chain', set(`event_data = (event_data::jsonb - 'chain')::${json}`), { reason: 'removed', seq: 2, id: 3 }],
        ['removed', ({ sql }) => sql`DELETE FROM backup_audit_logs WHERE id = 2`, { reason: 'removed', seq: 2, id: 3 }],
        ['first removed', ({ sql }) => sql`DELETE FROM backup_audit_logs WHERE id = 1`, { reason: 'removed', seq: 1, id: 2 }],
        ['last removed', ({ sql }) => sql`DELETE FROM backup_audit_logs WHERE id >= 3`, { reason: 'removed', seq: 3 }],
        ['all removed', ({ sql }) => sql`DELETE FROM backup_audit_logs`, { reason: 'removed', seq: 1 }],
        ['swapped', async ({ sql }) => {
          await sql`UPDATE backup_audit_logs SET id = -id`
          await sql`UPDATE backup_audit_logs SET id = CASE id WHEN -2 THEN 3 WHEN -3 THEN 2 ELSE -id END`
        }, { reason: 'reordered', id: 2, seq: 3 }],
        ['doubled', ({ sql }) => sql`INSERT INTO backup_audit_logs (audit_id, event_type, event_category, username, resource_type, resource_id, resource_name,
            action, status, event_data, after_state, risk_level, created_at)
          SELECT audit_id || 'x', event_type, event_category, username, resource_type, resource_id, resource_name, action, status, event_data, after_state,
            risk_level, created_at FROM backup_audit_logs WHERE id = 2`, { reason: 'changed' }],
        ['head', ({ sql }) => sql`UPDATE backup_audit_chain SET hash = repeat('a', 64)`, { reason: 'changed' }],
      ]
      for (const [name, tamper, broken] of ways) {
        t.test(name, async (t) => {
          await write(4)
          t.ok((await verifyAudit(catalog.db)).ok)
          await tamper(catalog)
          t.match(await verifyAudit(catalog.db), { ok: false, broken: { ...broken, message: String } })
        })
      }
    })

    t.test('is one chain for many writers, and what is rolled back leaves no gap', async (t) => {
      await write(0)
      const others = await Promise.all([1, 2].map(() => openCatalog({
        databaseUrl: catalog.url, stateDir: '/nonexistent', log: silentLog(), signal: new AbortController().signal,
      })))
      t.teardown(() => Promise.all(others.map((other) => other.close())))
      await Promise.all([catalog, ...others].flatMap(({ db }) => Array.from({ length: 10 }, (_, n) => n % 3 === 0
        ? db.transaction(async (tx) => {
          await writeAudit(tx, event())
          throw new Error('undone')
        }).catch(() => undefined)
        : writeAudit(db, event()))))
      t.match(await verifyAudit(catalog.db), { ok: true, checked: 18, foreign: 0 })
    })

    t.test('holds no secret, and only what fits', async (t) => {
      await write(0)
      new Secret('hunter22222')
      const row = await writeAudit(catalog.db, event({
        resource: { type: 'storage', name: 'ü'.repeat(300) },
        before: { config_data: { bucket_name: 'b', secret_access_key: 'AKIA-x', password: { $env: 'NAME' }, private_key_path: '/k' }, note: 'it was hunter22222!' },
        after: { url: 'postgres://u:pw12345@h/d', text: 'nul \0 and \ud800 half' },
        event_data: { list: [{ passphrase: 'abc' }], chain: 'not this one' },
      }))
      t.strictSame(row.before_state, { config_data: { bucket_name: 'b', secret_access_key: '[secret]', password: { $env: 'NAME' }, private_key_path: '/k' }, note: 'it was [secret]!' })
      t.strictSame(row.after_state, { url: 'postgres://u:[secret]@h/d', text: 'nul  and \ufffd half' })
      t.match(row.event_data, { list: [{ passphrase: '[secret]' }], chain: { seq: 1 } })
      t.equal(row.resource_name, 'ü'.repeat(200))
      t.ok((await verifyAudit(catalog.db)).ok)
    })

    t.test('whatever JSON holds', async (t) => {
      await write(0)
      await fc.assert(fc.asyncProperty(fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue({ stringUnit: 'binary' })), fc.jsonValue(), async (after, value) => {
        await writeAudit(catalog.db, event({ after, event_data: { value } }))
      }), { numRuns: 100 })
      t.match(await verifyAudit(catalog.db), { ok: true, checked: 100 })
    })
  })
}

t.test('canonical JSON does not depend on the order of keys', (t) => {
  fc.assert(fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
    const turned = Object.fromEntries(Object.entries(value).reverse())
    return canonicalJson(value) === canonicalJson(turned)
  }))
  t.end()
})
