import * as fc from 'fast-check'
import t from 'tap'
import { auditHead } from '../../src/audit/anchor.js'
import { listAudit, readAudit, writeAudit, type AuditEvent } from '../../src/audit/audit.js'
import { canonicalJson } from '../../src/audit/canonical.js'
import { exportLine } from '../../src/audit/export.js'
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

/** Does what the trigger would refuse, as who owns the table can. */
const unguarded = async (catalog: Catalog, work: (catalog: Catalog) => Promise<unknown>): Promise<void> => {
  await catalog.sql`ALTER TABLE backup_audit_logs DISABLE TRIGGER USER`
  await work(catalog)
  await catalog.sql`ALTER TABLE backup_audit_logs ENABLE ALWAYS TRIGGER backupd_audit_guard, ENABLE ALWAYS TRIGGER backupd_audit_guard_truncate`
}

const writtenAnew = 'written anew'

for (const [kind, ddl] of [['jsonb', ''], ['json', applicationDdl('nine')]] as const) {
  t.test(`a chain in ${kind} columns`, async (t) => {
    const catalog = await catalogOn(t, server, ddl)
    const write = async (n: number): Promise<void> => {
      await unguarded(catalog, ({ sql }) => sql`TRUNCATE backup_audit_logs, backup_audit_chain RESTART IDENTITY`)
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
      const all = await listAudit(catalog.db)
      const [last, , , , third] = all
      t.match(last, { username: 'ann', event_type: 'backup.completed', status: 'failure', risk_level: 'high', event_data: { host: 'h1' }, chain_seq: 4 })
      t.equal(last?.prev_hash, third?.hash)
      t.strictSame(await auditHead(catalog.db), { chain: all.at(-1)?.hash, seq: 4, hash: last?.hash })
      t.equal((await listAudit(catalog.db, { category: 'backup' })).length, 1)
      t.equal((await listAudit(catalog.db, { type: 'schedule.*' })).length, 3)
      t.equal((await listAudit(catalog.db, { resource: { type: 'schedule', name: 's1' } })).length, 1)
      t.equal((await listAudit(catalog.db, { resource: { type: 'schedule', subject: '2' } })).length, 1)
      t.equal((await listAudit(catalog.db, { since: new Date(Date.now() + 60_000) })).length, 0)
      t.strictSame((await listAudit(catalog.db, { before: 3, limit: 1 })).map(({ id }) => id), [2])
      const ids = []
      for await (const { id } of readAudit(catalog.db)) ids.push(id)
      t.strictSame(ids, [1, 2, 3, 4, 5, 6, 7])
    })

    t.test('shows what was done to it', async (t) => {
      const set = (text: string) => (catalog: Catalog) => catalog.sql.unsafe(`UPDATE backup_audit_logs SET ${text} WHERE id = 2`)
      const json = kind
      const cutHead = ({ sql }: Catalog) => sql`UPDATE backup_audit_chain SET seq = 2, hash = (SELECT hash FROM backup_audit_logs WHERE id = 2)`
      const ways: [string, (catalog: Catalog) => Promise<unknown>, object][] = [
        ['status', set(`status = 'warning'`), { reason: 'changed', id: 2, seq: 2 }],
        ['user', set(`username = 'eve'`), { reason: 'changed', id: 2 }],
        ['user id', set('user_ip = \'10.0.0.1\''), { reason: 'changed', id: 2 }],
        ['time', set(`created_at = created_at + interval '1 millisecond'`), { reason: 'changed', id: 2 }],
        ['after', set(`after_state = jsonb_set(after_state::jsonb, '{jobs}', '3')::${json}`), { reason: 'changed', id: 2 }],
        ['data', set(`event_data = jsonb_set(event_data::jsonb, '{host}', '"h2"')::${json}`), { reason: 'changed', id: 2 }],
        ['number', set('chain_seq = 9'), { reason: 'removed', seq: 2, id: 3 }],
        ['link', set(`prev_hash = repeat('a', 64)`), { reason: 'changed', seq: 2, id: 2 }],
        ['no link', set('chain_seq = NULL, prev_hash = NULL, hash = NULL'), { reason: 'removed', seq: 2, id: 3 }],
        ['removed', ({ sql }) => sql`DELETE FROM backup_audit_logs WHERE id = 2`, { reason: 'removed', seq: 2, id: 3 }],
        ['two removed', ({ sql }) => sql`DELETE FROM backup_audit_logs WHERE id IN (2, 3)`, { reason: 'removed', seq: 2, id: 4, message: /entry 2 and the 1 after it were removed/ }],
        ['first removed', ({ sql }) => sql`DELETE FROM backup_audit_logs WHERE id = 1`, { reason: 'removed', seq: 1, id: 2 }],
        ['last removed', ({ sql }) => sql`DELETE FROM backup_audit_logs WHERE id >= 4`, { reason: 'removed', seq: 4 }],
        ['all removed', ({ sql }) => sql`DELETE FROM backup_audit_logs`, { reason: 'removed', seq: 1 }],
        ['swapped', async ({ sql }) => {
          await sql`UPDATE backup_audit_logs SET chain_seq = -chain_seq`
          await sql`UPDATE backup_audit_logs SET chain_seq = CASE chain_seq WHEN -2 THEN 3 WHEN -3 THEN 2 ELSE -chain_seq END`
        }, { reason: 'changed', id: 3, seq: 2 }],
        ['doubled', ({ sql }) => sql`INSERT INTO backup_audit_logs (audit_id, event_type, event_category, username, resource_type, resource_id, resource_name,
            action, status, event_data, after_state, risk_level, created_at, chain_seq, prev_hash, hash)
          SELECT audit_id || 'x', event_type, event_category, username, resource_type, resource_id, resource_name, action, status, event_data, after_state,
            risk_level, created_at, 5, prev_hash, hash FROM backup_audit_logs WHERE id = 2`, { reason: 'changed', seq: 5 }],
        ['head', ({ sql }) => sql`UPDATE backup_audit_chain SET hash = repeat('a', 64)`, { reason: 'changed' }],
        ['head put back', ({ sql }) => sql`UPDATE backup_audit_chain SET seq = 3`, { reason: 'added', seq: 4 }],
        ['end and head', async (catalog) => {
          await catalog.sql`DELETE FROM backup_audit_logs WHERE id >= 3`
          await cutHead(catalog)
        }, { reason: 'removed', seq: 3, backup_id: 'b', message: /manifest of backup b names entry 3/ }],
        ['everything and head', ({ sql }) => sql`TRUNCATE backup_audit_logs, backup_audit_chain`, { reason: 'removed', seq: 1, backup_id: 'b' }],
        ['written anew from there', async (catalog) => {
          await catalog.sql`DELETE FROM backup_audit_logs WHERE id >= 3`
          await cutHead(catalog)
          for (let n = 0; n < 3; n += 1) await writeAudit(catalog.db, event())
        }, { reason: 'replaced', seq: 3, backup_id: 'b' }],
        [writtenAnew, async ({ sql, db }) => {
          await sql`TRUNCATE backup_audit_logs, backup_audit_chain`
          for (let n = 0; n < 5; n += 1) await writeAudit(db, event())
        }, { reason: 'replaced', seq: 1, backup_id: 'b' }],
      ]
      for (const [name, tamper, broken] of ways) {
        t.test(name, async (t) => {
          await write(3)
          const head = await auditHead(catalog.db)
          if (head === undefined) throw new Error('no head')
          const anchors = [{ ...head, backup_id: 'b' }, { ...head, backup_id: 'b' }]
          await writeAudit(catalog.db, event())
          t.match(await verifyAudit(catalog.db, { anchors }), { ok: true, anchors: 2 })
          await unguarded(catalog, tamper)
          t.match(await verifyAudit(catalog.db, { anchors }), { ok: false, broken: { message: String, ...broken } })
          if (name === writtenAnew) t.match(await verifyAudit(catalog.db, { anchors, knownChains: [head.chain] }), { ok: true })
        })
      }
    })

    t.test('is not to be changed, removed or emptied, while rows of other programs are theirs', async (t) => {
      await write(2)
      await foreign(catalog)
      for (const statement of [
        `UPDATE backup_audit_logs SET username = 'eve' WHERE id = 1`, 'UPDATE backup_audit_logs SET hash = NULL', 'DELETE FROM backup_audit_logs WHERE id = 2',
        'TRUNCATE backup_audit_logs', 'SET session_replication_role = replica; DELETE FROM backup_audit_logs',
      ]) {
        const error: unknown = await catalog.sql.unsafe(statement).catch((thrown: unknown) => thrown)
        t.match(error, { code: '23001', message: /audit trail of backupd cannot be (changed|removed|emptied)/, hint: String }, statement)
      }
      await catalog.sql`UPDATE backup_audit_logs SET username = 'theirs' WHERE hash IS NULL`
      await catalog.sql`DELETE FROM backup_audit_logs WHERE hash IS NULL`
      t.match(await verifyAudit(catalog.db), { ok: true, checked: 2, foreign: 0 })
      await unguarded(catalog, ({ sql }) => sql`TRUNCATE backup_audit_logs, backup_audit_chain`)
      await foreign(catalog)
      await catalog.sql`TRUNCATE backup_audit_logs`
    })

    t.test('is one chain for many writers, and what is rolled back leaves no gap', async (t) => {
      await write(0)
      const others = await Promise.all([1, 2].map(() => openCatalog({
        databaseUrl: catalog.url, stateDir: '/nonexistent', log: silentLog(), signal: new AbortController().signal,
      })))
      t.teardown(() => Promise.all(others.map((other) => other.close())))
      const rows = await Promise.all([catalog, ...others].flatMap(({ db }) => Array.from({ length: 10 }, (_, n) => n % 3 === 0
        ? db.transaction(async (tx) => {
          await writeAudit(tx, event())
          throw new Error('undone')
        }).catch(() => undefined)
        : writeAudit(db, event({ resource: { type: 'schedule', id: n } })))))
      t.match(await verifyAudit(catalog.db), { ok: true, checked: 18, foreign: 0 })
      // Whoever shared a transaction has got the own entry back.
      const stored = new Map((await listAudit(catalog.db)).map((row) => [row.id, row]))
      for (const row of rows) if (row !== undefined) t.strictSame(stored.get(row.id), row)
    })

    t.test('holds no secret, and only what fits', async (t) => {
      await write(0)
      new Secret('hunter22222')
      const row = await writeAudit(catalog.db, event({
        resource: { type: 'storage', name: 'ü'.repeat(300) },
        before: { config_data: { bucket_name: 'b', secret_access_key: 'AKIA-x', password: { $env: 'NAME' }, private_key_path: '/k' }, note: 'it was hunter22222!' },
        after: { url: 'postgres://u:pw12345@h/d', text: 'nul \0 and \ud800 half' },
        event_data: { list: [{ passphrase: 'abc' }], chain: 'theirs' },
      }))
      t.strictSame(row.before_state, { config_data: { bucket_name: 'b', secret_access_key: '[secret]', password: { $env: 'NAME' }, private_key_path: '/k' }, note: 'it was [secret]!' })
      t.strictSame(row.after_state, { url: 'postgres://u:[secret]@h/d', text: 'nul  and \ufffd half' })
      t.match(row.event_data, { list: [{ passphrase: '[secret]' }], chain: 'theirs' })
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

t.test('canonical JSON is that of RFC 8785', (t) => {
  // The two examples of the RFC, sections 3.2.2 and 3.2.3, in part.
  const numbers: unknown = JSON.parse('{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"literals":[null,true,false]}')
  t.equal(canonicalJson(numbers), '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27]}')
  t.equal(canonicalJson({ '\u20ac': 1, '\r': 2, '\ufb33': 3, 1: 4, '\ud83d\ude00': 5, '\u0080': 6, '\u00f6': 7 }),
    '{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\ud83d\ude00":5,"\ufb33":3}')
  t.equal(canonicalJson({ 10: 1, 9: 2 }), '{"10":1,"9":2}', 'names that look like numbers are in order of their letters')
  fc.assert(fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
    const turned = Object.fromEntries(Object.entries(value).reverse())
    return canonicalJson(value) === canonicalJson(turned)
  }))
  t.end()
})

t.test('a spreadsheet takes no cell of an export for a formula', async (t) => {
  const catalog = await catalogOn(t, server)
  const row = await writeAudit(catalog.db, event({ actor: { username: '=cmd|calc' }, resource: { type: 'schedule', name: '@a, "b"\nc' } }))
  const text = exportLine(row, 'csv')
  t.match(text, /,'=cmd\|calc,/)
  t.match(text, /,"'@a, ""b""\nc",/)
})
