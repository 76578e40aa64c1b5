import t from 'tap'
import { countTables, createDatabase, databaseExists, dropDatabase, preflight, replaceDatabase } from '../../src/postgres/database.js'
import { parseConnection, withDatabase } from '../../src/postgres/connection.js'
import { describeDatabase, type DatabaseShape } from '../../src/postgres/describe.js'
import { withSql } from '../../src/postgres/sql.js'
import { startPostgres, type ServerMajor } from '../support/postgres-server.js'
import { connectTo } from '../support/sql.js'

const { signal } = new AbortController()

for (const major of [12, 14, 15, 16, 18] as ServerMajor[]) {
  void t.test(`databases of PostgreSQL ${major} are made again in the same shape`, async (t) => {
    const server = await startPostgres({ major })
    t.teardown(() => server.stop())
    const sql = connectTo(server.url())
    await sql`CREATE ROLE "The Owner"`
    const makes = ["ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' OWNER \"The Owner\"", "ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C'"]
    if (major >= 15) makes.push("ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk' LC_COLLATE 'C' LC_CTYPE 'C'")
    if (major >= 16) makes.push("ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en' ICU_RULES '&V << w <<< W' LC_COLLATE 'C' LC_CTYPE 'C'")
    if (major >= 17) makes.push("ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LC_COLLATE 'C' LC_CTYPE 'C'")
    for (const [index, make] of makes.entries()) {
      await sql.unsafe(`CREATE DATABASE "from ${index}" TEMPLATE template0 ${make}`)
      const source = parseConnection(server.url(`from ${index}`))
      const described = await withSql(source, { signal }, describeDatabase)
      t.equal(described.serverMajor, major)
      const target = withDatabase(source, `to "${index}"`)
      t.equal(await databaseExists(target, signal), false)
      t.same(await createDatabase(target, described, signal), { warnings: [] })
      t.equal(await databaseExists(target, signal), true)
      const made = await withSql(target, { signal }, describeDatabase)
      const shape = ({ encoding, collate, ctype, provider, locale, icuRules, owner }: DatabaseShape): DatabaseShape => ({ encoding, collate, ctype, provider, locale, icuRules, owner })
      t.same(shape(made), shape(described), make)
      await t.rejects(createDatabase(target, described, signal), { code: 'database.exists', kind: 'configuration' })
      const inUse = connectTo(server.url(`to "${index}"`))
      await inUse`SELECT 1`
      await dropDatabase(target, signal)
      await inUse.end({ timeout: 0 }).catch(() => undefined)
      t.equal(await databaseExists(target, signal), false)
      await dropDatabase(target, signal)
    }
    const shape = await withSql(parseConnection(server.url()), { signal }, describeDatabase)
    const target = withDatabase(parseConnection(server.url()), 'other')
    t.match(await createDatabase(target, { ...shape, owner: 'nobody known' }, signal), { warnings: [/nobody known/] })
    await dropDatabase(target, signal)
    await t.rejects(createDatabase(target, { ...shape, collate: 'xx_YY.UTF-8' }, signal), { code: 'database.locale', hint: /xx_YY/ })
    if (major < 15) await t.rejects(createDatabase(target, { ...shape, provider: 'icu', locale: 'de' }, signal), { code: 'database.locale', hint: /15/ })
    if (major < 17) await t.rejects(createDatabase(target, { ...shape, provider: 'builtin', locale: 'C' }, signal), { code: 'database.locale', hint: /17/ })
    await sql.end()
  })
}

t.test('what a target lacks is named before anything is done', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const connection = parseConnection(server.url('not there yet'))
  const missing = await preflight(connection, {
    roles: ['postgres', 'absent "role"'],
    extensions: [{ name: 'plpgsql', version: '1.0' }, { name: 'hstore', version: '0.1' }, { name: 'postgis', version: '3.4' }],
    tablespaces: ['pg_default', 'fast'],
  }, signal)
  t.match(missing, [
    { kind: 'role', name: 'absent "role"', fatal: true, message: /create it/ },
    { kind: 'extension', name: 'hstore', fatal: false, message: /0\.1/ },
    { kind: 'extension', name: 'postgis', fatal: true, message: /install/ },
    { kind: 'tablespace', name: 'fast', fatal: true },
  ])
  t.equal(missing.length, 4)
})

t.test('tables are counted, and those that are gone are left out', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const sql = connectTo(server.url())
  await sql.unsafe('CREATE TABLE "a ""b""" AS SELECT generate_series(1, 12); CREATE TABLE none (); CREATE VIEW seen AS SELECT 1').simple()
  await sql.end()
  const named = ['a "b"', 'none', 'gone', 'seen'].map((name) => ({ schema: 'public', name }))
  t.same(await countTables(parseConnection(server.url()), named, signal), [{ schema: 'public', name: 'a "b"', rows: 12 }, { schema: 'public', name: 'none', rows: 0 }])
})

t.test('everything that a database refers to is described', async (t) => {
  const server = await startPostgres({ major: 14 })
  t.teardown(() => server.stop())
  const sql = connectTo(server.url())
  await sql.unsafe(`
    CREATE ROLE owns; CREATE ROLE reads; CREATE ROLE by_default; CREATE ROLE in_policy; CREATE ROLE unrelated; CREATE ROLE on_column; CREATE ROLE of_function;
    CREATE TABLE t (a int); ALTER TABLE t OWNER TO owns; GRANT SELECT ON t TO reads; GRANT UPDATE (a) ON t TO on_column;
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO by_default; CREATE POLICY p ON t TO in_policy; ALTER TABLE t ENABLE ROW LEVEL SECURITY;
    CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO of_function; CREATE EXTENSION citext`).simple()
  await sql.end()
  const described = await withSql(parseConnection(server.url()), { signal }, describeDatabase)
  t.same(described.roles, ['by_default', 'in_policy', 'of_function', 'on_column', 'owns', 'postgres', 'reads'])
  t.same(described.extensions.map(({ name }) => name), ['citext', 'plpgsql'])
  t.same(described.tablespaces, [])
  t.match(described, { database: 'postgres', encoding: 'UTF8', provider: 'libc', owner: 'postgres', superuser: true, inRecovery: false })
  t.ok(described.size > 1_000_000)
})

for (const major of [12, 18] as ServerMajor[]) {
  void t.test(`a database of PostgreSQL ${major} takes the place of another one that is in use`, async (t) => {
    const server = await startPostgres({ major })
    t.teardown(() => server.stop())
    const sql = connectTo(server.url())
    for (const name of ['in use', 'new']) {
      await sql.unsafe(`CREATE DATABASE "${name}"`)
      const inside = connectTo(server.url(name))
      await inside.unsafe(`CREATE TABLE "${name}" ()`)
      await inside.end()
    }
    const guest = connectTo(server.url('in use'))
    await guest`SELECT 1`
    const connection = parseConnection(server.url('in use'))
    const tables = () => withSql(connection, { signal }, (inside) => inside`SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'`)
    await t.rejects(replaceDatabase(connection, 'not there', signal), { code: /./ })
    t.same(await tables(), [{ name: 'in use' }])
    t.equal(await replaceDatabase(connection, 'new', signal), undefined)
    t.same(await tables(), [{ name: 'new' }])
    t.same(await sql`SELECT datname AS name FROM pg_database WHERE datname !~ '^template' ORDER BY 1`, [{ name: 'in use' }, { name: 'postgres' }])
    await guest.end({ timeout: 0 }).catch(() => undefined)
    await sql.end()
  })
}
