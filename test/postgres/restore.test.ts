import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { BackupdError } from '../../src/errors.js'
import { createDatabase, dropDatabase } from '../../src/postgres/database.js'
import { parseConnection, withDatabase } from '../../src/postgres/connection.js'
import { describeDatabase } from '../../src/postgres/describe.js'
import { dumpDatabase } from '../../src/postgres/dump.js'
import { listRelations } from '../../src/postgres/relations.js'
import { listArchive, restoreArchive } from '../../src/postgres/restore.js'
import { withSql } from '../../src/postgres/sql.js'
import { readContents } from '../../src/postgres/toc.js'
import { chooseTools, findTools } from '../../src/postgres/tools.js'
import { createHardDatabase } from '../fixtures/hard-database.js'
import { databaseContent } from '../support/content.js'
import { startPostgres } from '../support/postgres-server.js'
import { tempDir } from '../support/temp.js'

const { signal } = new AbortController()
const tools = chooseTools(await findTools(), 15)
const server = await startPostgres()
t.teardown(() => server.stop())
await createHardDatabase(server.url)
const source = parseConnection(server.url('hard'))
const target = withDatabase(source, 'target')
const shape = await withSql(source, { signal }, describeDatabase)
const whole = await databaseContent(server.url('hard'))
const archive: Buffer[] = []
for await (const chunk of dumpDatabase({ connection: source, tools, signal })) archive.push(chunk as Buffer)
const bytes = Buffer.concat(archive)

async function* inBlocks(data: Buffer, size = 65_536): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size)
}

t.test('the table of contents is read as pg_restore reads it, whatever the blocks', async (t) => {
  const listed = await listArchive(inBlocks(bytes), { tools, signal })
  for (const size of [1 << 20, 4096, 7]) {
    const { contents, whole: rest } = await readContents(inBlocks(bytes.subarray(0, size === 7 ? 400_000 : bytes.length), size))
    t.same(new Set(contents.entries.filter(({ type }) => !['ENCODING', 'STDSTRINGS', 'SEARCHPATH', 'DATABASE'].includes(type)).map(({ id }) => id)),
      new Set(listed.map((line) => Number(line.split(';')[0]))))
    t.equal(contents.database, 'hard')
    t.match(contents.serverVersion, /^15\./)
    if (size === 7) await rest.return()
    else {
      const all: Uint8Array[] = []
      for await (const chunk of rest) all.push(chunk)
      t.ok(Buffer.concat(all).equals(bytes))
    }
  }
  await t.rejects(readContents(inBlocks(bytes.subarray(0, 5000))), { code: 'restore.archive', kind: 'integrity', message: /ends within/ })
  await t.rejects(readContents(inBlocks(Buffer.from('not an archive at all'))), { code: 'restore.archive', message: /PGDMP/ })
  await t.rejects(readContents(inBlocks(Buffer.alloc(0))), { code: 'restore.archive' })
  const newer = Buffer.from(bytes)
  newer[6] = 99
  await t.rejects(readContents(inBlocks(newer)), { code: 'restore.archive', message: /1\.99/, hint: /newer/ })
})

t.test('chosen tables are restored with all that is theirs', async (t) => {
  const cycle = async (tables: string[], schemaOnly = false) => {
    await createDatabase(target, shape, signal)
    const report = await restoreArchive({ connection: target, tools, signal, source: inBlocks(bytes), tables, schemaOnly })
    const content = await databaseContent(server.url('target'))
    const relations = await withSql(target, { signal }, listRelations)
    const facts = await withSql(target, { signal }, (sql) => sql`
      SELECT (SELECT json_agg(indexrelid::regclass::text ORDER BY 1) FROM pg_index WHERE indrelid::regclass::text LIKE 'shape.%') AS indexes,
        (SELECT json_agg(polname) FROM pg_policy) AS policies, (SELECT json_agg(tgname ORDER BY 1) FROM pg_trigger WHERE NOT tgisinternal) AS triggers,
        (SELECT json_agg(conname ORDER BY 1) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0) AS keys,
        (SELECT count(*)::int FROM pg_event_trigger) AS event_triggers`)
    await dropDatabase(target, signal)
    const filled = content.filter(({ rows, table }) => rows > 0 && relations.some(({ schema, name, kind }) => `${schema}.${name}` === table && kind === 'table'))
    for (const table of filled) t.same(table, whole.find((one) => one.table === table.table), table.table)
    return { report, filled: filled.map(({ table }) => table), relations: relations.map(({ schema, name }) => `${schema}.${name}`), facts: facts[0] as Record<string, unknown>, content }
  }

  const partitioned = await cycle(['shape.events'])
  t.same(partitioned.filled, ['shape.events 2026 *a', 'shape.events_2025', 'shape.events_2026_rest'])
  t.ok((partitioned.facts['indexes'] as string[]).length >= 10, 'every partition has its indexes')
  t.equal(partitioned.facts['event_triggers'], 0)

  const touched = await cycle(['acts.touched', 'kinds.everything'])
  t.same(touched.filled, ['acts.touched', 'kinds.everything'])
  t.same(touched.facts['policies'], ['only mine *'])
  t.same(touched.facts['triggers'], ['never', 'touch it'])
  for (const sequence of ['kinds.everything_id_seq', 'kinds.everything_other_seq', 'kinds.everything_ser_seq']) {
    t.same(touched.content.find(({ table }) => table === sequence), whole.find(({ table }) => table === sequence), sequence)
  }

  const keys = await cycle(['shape.refers', 'shape.left_side', 'shape.right_side'])
  t.same(keys.filled, ['shape.left_side', 'shape.refers', 'shape.right_side'])
  t.same(keys.facts['keys'], ['circle *', 'right_side_other_fkey'])
  t.match(keys.report.warnings, [/refers_id_at_fkey is not restored/])

  const view = await cycle(['shape."second view"', 'kinds.uses_counter', '*."quo""te"', 'child', 'no.such'])
  t.same(view.filled, ['kinds.uses_counter', 'public.quo"te', 'shape.child', 'we.ird "schema"*.quo"te'].filter((name) => name !== 'kinds.uses_counter'))
  for (const name of ['shape.second view', 'shape.first_view', 'shape.events', 'kinds.uses_counter', 'kinds.counter', 'shape.parent']) t.ok(view.relations.includes(name), name)
  t.same(view.report.warnings.filter((text) => text.includes('no.such')), ['the table pattern no.such matches nothing in the backup'])

  const empty = await cycle(['acts.touched'], true)
  t.same(empty.filled, [])
  t.ok(empty.relations.includes('acts.touched'))
  await createDatabase(target, shape, signal)
  await t.rejects(restoreArchive({ connection: target, tools, signal, source: inBlocks(bytes), tables: ['no_such'] }), { code: 'restore.nothing_chosen' })
  await dropDatabase(target, signal)
})

t.test('one table into a database that has the rest', async (t) => {
  await createDatabase(target, shape, signal)
  await restoreArchive({ connection: target, tools, signal, source: inBlocks(bytes) })
  await withSql(target, { signal }, (sql) => sql.unsafe('DROP TABLE acts.touched; DELETE FROM shape.tree'))
  await restoreArchive({ connection: target, tools, signal, source: inBlocks(bytes), tables: ['acts.touched'], prerequisites: false })
  const content = await databaseContent(server.url('target'))
  t.same(content.filter(({ table }) => table !== 'shape.tree'), whole.filter(({ table }) => table !== 'shape.tree'))
  await dropDatabase(target, signal)
})

t.test('what goes wrong is told, and nothing is left behind', async (t) => {
  const spoolDir = tempDir(t)
  for (const jobs of [1, 2]) {
    const restore = (from: AsyncIterable<Uint8Array>, stop = signal) => restoreArchive({ connection: target, tools, source: from, jobs, spoolDir, signal: stop })
    await t.rejects(restore(inBlocks(bytes)), { code: 'restore.failed', kind: 'configuration', message: /"target" does not exist/ })
    await createDatabase(target, shape, signal)
    async function* broken() {
      yield* inBlocks(bytes.subarray(0, Math.floor(bytes.length / 2)))
      throw new BackupdError('encryption.corrupt', 'a chunk is damaged')
    }
    await t.rejects(restore(broken()), { code: 'encryption.corrupt' }, 'the error of the source wins')
    await dropDatabase(target, signal)
    await createDatabase(target, shape, signal)
    await t.rejects(restore(inBlocks(bytes.subarray(0, Math.floor(bytes.length / 2)))), { code: 'restore.failed' }, 'a short archive')
    await dropDatabase(target, signal)
    await createDatabase(target, shape, signal)
    await restore(inBlocks(bytes))
    await t.rejects(restore(inBlocks(bytes)), { code: 'restore.failed', message: /already exists/, hint: /new database/ })
    const stop = new AbortController()
    async function* slow() {
      for await (const block of inBlocks(bytes, 1 << 20)) {
        await sleep(100)
        yield block
      }
    }
    await dropDatabase(target, signal)
    await createDatabase(target, shape, signal)
    setTimeout(() => stop.abort(), 600)
    await t.rejects(restore(slow(), stop.signal), { code: 'cancelled' })
    await dropDatabase(target, signal)
    t.same(readdirSync(spoolDir), [])
  }
  await t.rejects(listArchive(inBlocks(bytes.subarray(0, 3000)), { tools, signal }), { code: 'restore.archive' })
})
