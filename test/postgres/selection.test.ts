import fc from 'fast-check'
import t from 'tap'
import { createDatabase, dropDatabase } from '../../src/postgres/database.js'
import { parseConnection, withDatabase } from '../../src/postgres/connection.js'
import { describeDatabase } from '../../src/postgres/describe.js'
import { dumpDatabase } from '../../src/postgres/dump.js'
import { exactly, matches, parsePattern } from '../../src/postgres/patterns.js'
import { listRelations } from '../../src/postgres/relations.js'
import { restoreArchive } from '../../src/postgres/restore.js'
import { selectionArguments, selectRelations } from '../../src/postgres/selection.js'
import { withSql } from '../../src/postgres/sql.js'
import { readContents } from '../../src/postgres/toc.js'
import { chooseTools, findTools } from '../../src/postgres/tools.js'
import { createHardDatabase, hardNames } from '../fixtures/hard-database.js'
import { databaseContent } from '../support/content.js'
import { startPostgres } from '../support/postgres-server.js'
import { connectTo } from '../support/sql.js'

const { signal } = new AbortController()
const tools = chooseTools(await findTools(), 15)

t.test('patterns', (t) => {
  const yes = (pattern: string, schema: string, name: string) => t.ok(matches(parsePattern(pattern), { schema, name }), `${pattern} means ${schema}.${name}`)
  const no = (pattern: string, schema: string, name: string) => t.notOk(matches(parsePattern(pattern), { schema, name }), `${pattern} does not mean ${schema}.${name}`)
  yes('orders', 'public', 'orders')
  yes('orders', 'archive', 'orders')
  no('orders', 'public', 'Orders')
  no('order', 'public', 'orders')
  yes('public.order*', 'public', 'orders')
  no('public.order*', 'publicx', 'orders')
  yes('*.*_log', 'a', 'x\ny_log')
  yes('*', 'a', 'b.c')
  no('a?b', 'x', 'acb')
  yes('a?b[1]', 'x', 'a?b[1]')
  yes('"with.dot"', 'x', 'with.dot')
  no('"with*"', 'x', 'with.dot')
  yes('"qu""o".t', 'qu"o', 't')
  yes('"a*"*.t', 'a*bc', 't')
  for (const bad of ['', '.', 'a.', '.b', 'a.b.c', '"open', 'a."open']) t.throws(() => parsePattern(bad), { code: 'pattern.invalid', kind: 'usage' }, bad)
  t.end()
})

t.test('a quoted name means exactly one table to pg_dump', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const connection = parseConnection(server.url())
  // Short names of a small alphabet, so that unquoted they would match each other.
  const unit = fc.constantFrom('a', 'A', 'b', '*', '?', '.', '"', "'", '$', '\\', '|', '+', '(', ')', '[', ']', '{', '}', '^', ' ', '-', '\n', 'é', '!', '~', '%')
  const name = fc.string({ unit, minLength: 1, maxLength: 4 })
  const table = fc.record({ schema: fc.constantFrom('public', 'a', 'a*', 'A.b', '"', 'b\\'), name })
  const tables = fc.uniqueArray(table, { minLength: 8, maxLength: 30, selector: ({ schema, name: own }) => JSON.stringify([schema, own]) })
  await fc.assert(fc.asyncProperty(tables, fc.infiniteStream(fc.boolean()), async (all, coins) => {
    const chosen = all.filter(() => coins.next().value)
    await withSql(connection, { signal }, async (sql) => {
      await sql.unsafe('DROP SCHEMA IF EXISTS public, a, "a*", "A.b", """", "b\\" CASCADE; CREATE SCHEMA public; CREATE SCHEMA a; CREATE SCHEMA "a*"; CREATE SCHEMA "A.b"; CREATE SCHEMA """"; CREATE SCHEMA "b\\"').simple()
      await sql.unsafe(all.map((one) => `CREATE TABLE ${exactly(one)} ()`).join(';')).simple()
    })
    const inDump = async (...args: string[]) => {
      const { contents, whole } = await readContents(dumpDatabase({ connection, tools, signal, tables: args }))
      await whole.return()
      return contents.entries.filter(({ type }) => type === 'TABLE').map(({ schema, tag }) => JSON.stringify([schema, tag])).sort()
    }
    const labels = (list: typeof all) => list.map(({ schema, name: own }) => JSON.stringify([schema, own])).sort()
    if (chosen.length > 0) t.same(await inDump(...chosen.map((one) => `--table=${exactly(one)}`)), labels(chosen))
    t.same(await inDump(...chosen.map((one) => `--exclude-table=${exactly(one)}`)), labels(all.filter((one) => !chosen.includes(one))))
  }), { numRuns: 25 })
})

t.test('a part of a hard database is dumped, restores by itself, and holds what was asked for', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  await createHardDatabase(server.url)
  const source = parseConnection(server.url('hard'))
  const target = withDatabase(source, 'target')
  const all = await withSql(source, { signal }, listRelations)
  const shape = await withSql(source, { signal }, describeDatabase)
  const whole = await databaseContent(server.url('hard'))

  const cycle = async (include: string[], exclude: string[]) => {
    const selection = selectRelations(all, include, exclude)
    await createDatabase(target, shape, signal)
    const report = await restoreArchive({
      connection: target, tools, signal, danglingKeys: selection.danglingKeys,
      source: dumpDatabase({ connection: source, tools, signal, tables: selectionArguments(selection) }),
    })
    const content = await databaseContent(server.url('target'))
    const relations = (await withSql(target, { signal }, listRelations)).map(({ schema, name }) => `${schema}.${name}`)
    const keys = await withSql(target, { signal }, (sql) => sql`SELECT conname AS name FROM pg_constraint WHERE contype = 'f' AND conparentid = 0`)
    await dropDatabase(target, signal)
    const filled = content.filter(({ rows, table }) => rows > 0 && all.some(({ schema, name, kind }) => `${schema}.${name}` === table && kind === 'table'))
    for (const table of filled) t.same(table, whole.find((one) => one.table === table.table), table.table)
    return { selection, report, relations, filled: filled.map(({ table }) => table), objects: content.find(({ table }) => table === 'large objects')?.rows, keys: keys.map((row) => row['name'] as string) }
  }

  t.test('a partitioned table comes with its partitions', async (t) => {
    const { filled, relations, objects } = await cycle(['shape.events'], [])
    t.same(filled, ['shape.events 2026 *a', 'shape.events_2025', 'shape.events_2026_rest'])
    t.ok(relations.includes('shape.events'))
    t.notOk(relations.includes('shape.first_view'))
    t.notOk(relations.includes('public.Upper'))
    t.equal(objects, 0)
  })
  t.test('a foreign key to what is left out is named and left out', async (t) => {
    const { selection, report, filled, relations, keys } = await cycle(['shape.refers', 'shape.tree'], [])
    t.same(filled, ['shape.refers', 'shape.tree'])
    t.same(selection.danglingKeys, [{ schema: 'shape', table: 'refers', constraint: 'refers_id_at_fkey' }])
    t.match(selection.warnings.join('\n'), /refers_id_at_fkey/)
    t.match(report.warnings.join('\n'), /refers refers_id_at_fkey/)
    t.same(keys, ['tree_up_fkey'])
    t.ok(relations.includes('shape.parent'), 'a function has it for an argument')
    t.match(selection.warnings.join('\n'), /shape\.parent is left out with its rows only: function acts\.whole_row/)
  })
  t.test('a partition and an inheriting table need their parents, but not their rows', async (t) => {
    const { filled, relations } = await cycle(['shape.child', 'shape.events_2025'], [])
    t.same(filled, ['shape.child', 'shape.events_2025'])
    t.same(relations.filter((name) => name.startsWith('shape.')), ['shape.child', 'shape.events', 'shape.events_2025', 'shape.parent'])
  })
  t.test('what is excluded is not there, nor are the views of it', async (t) => {
    const { filled, relations, keys, selection, objects } = await cycle([], ['shape.events', 'kinds.counter', 'left_side', '*.quo*', 'nothing.at_all'])
    t.same(relations.filter((name) => name.startsWith('shape.')), all.filter(({ schema, name }) => schema === 'shape'
      && !/^(events.*|first_view|second view|totals|a_totals_of_totals|left_side)$/.test(name)).map(({ schema, name }) => `${schema}.${name}`))
    t.notOk(relations.some((name) => name.includes('quo')))
    t.ok(filled.includes('public.Upper'))
    t.ok(relations.includes('kinds.counter'), 'a default needs the sequence')
    t.same(keys, ['tree_up_fkey'])
    t.match(selection.warnings.join('\n'), /nothing\.at_all matches no table/)
    t.equal(objects, 3)
  })
  t.test('every hard name by itself', async (t) => {
    for (const name of hardNames) {
      const pattern = `public."${name.replaceAll('"', '""')}"`
      const selection = selectRelations(all, [pattern], [])
      t.same(selection.relations.filter(({ kind }) => kind !== 'sequence').map((one) => [one.schema, one.name]), [['public', name]])
    }
    const one = await cycle(['public."*"', '"we.ird ""schema""*"."quo""te"'], [])
    t.same(one.filled, ['public.*', 'we.ird "schema"*.quo"te'])
  })
  t.throws(() => selectRelations(all, ['no_such', 'public.neither'], []), { code: 'dump.nothing_included', kind: 'configuration' })
  t.same(selectRelations(all, ['no_such', 'public.Upper'], []).warnings.filter((text) => text.includes('pattern')), ['the include pattern no_such matches no table'])
  const everything = selectRelations(all, [], [])
  t.same(selectionArguments(everything), [])
  t.equal(everything.partial, false)
})

t.test('names beyond ASCII in a database of another encoding', async (t) => {
  const server = await startPostgres({ major: 12 })
  t.teardown(() => server.stop())
  const admin = connectTo(server.url())
  for (const encoding of ['LATIN1', 'SQL_ASCII']) {
    await admin.unsafe(`CREATE DATABASE "${encoding}" TEMPLATE template0 ENCODING '${encoding}' LC_COLLATE 'C' LC_CTYPE 'C'`)
    const sql = connectTo(server.url(encoding))
    await sql.unsafe('CREATE TABLE "Größe" (v text); INSERT INTO "Größe" VALUES (\'ä\'); CREATE TABLE "naïve" (v text); CREATE TABLE plain (v text); INSERT INTO plain VALUES (\'ü\')').simple()
    const source = parseConnection(server.url(encoding))
    const target = withDatabase(source, 'target')
    const all = await withSql(source, { signal }, listRelations)
    const selection = selectRelations(all, [], ['Grö*'])
    await createDatabase(target, await withSql(source, { signal }, describeDatabase), signal)
    await restoreArchive({ connection: target, tools, signal, source: dumpDatabase({ connection: source, tools, signal, tables: selectionArguments(selection) }) })
    t.same(await databaseContent(server.url('target')), (await databaseContent(server.url(encoding))).filter(({ table }) => !table.includes('Gr')), encoding)
    await sql.end()
    await dropDatabase(target, signal)
  }
  await admin.end()
})
