import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import t from 'tap'
import { createDatabase, databaseExists, dropDatabase, preflight } from '../../src/postgres/database.js'
import { parseConnection, withDatabase, type Connection } from '../../src/postgres/connection.js'
import { describeDatabase } from '../../src/postgres/describe.js'
import { dumpDatabase, dumpGlobals } from '../../src/postgres/dump.js'
import { restoreGlobals } from '../../src/postgres/globals.js'
import { toolEnvironment } from '../../src/postgres/environment.js'
import { restoreArchive } from '../../src/postgres/restore.js'
import { holdSnapshot } from '../../src/postgres/snapshot.js'
import { withSql } from '../../src/postgres/sql.js'
import { chooseTools, findTools, type Tools } from '../../src/postgres/tools.js'
import { createHardDatabase } from '../fixtures/hard-database.js'
import { databaseContent } from '../support/content.js'
import { startPostgres, type ServerMajor } from '../support/postgres-server.js'

const run = promisify(execFile)
const { signal } = new AbortController()

const schemaOf = async (connection: Connection, tools: Tools): Promise<string> => {
  const { env, dispose } = await toolEnvironment(connection)
  const { stdout } = await run(tools.pg_dump, ['--schema-only'], { env, maxBuffer: 64 * 1024 * 1024 })
  await dispose()
  // A new key for every run, in versions since August 2025.
  return stdout.replace(/^\\(un)?restrict .*$/gm, '')
}

const found = await findTools()
for (const major of [12, 14, 15] as ServerMajor[]) {
  void t.test(`a hard database of PostgreSQL ${major} comes back the same`, async (t) => {
    const [server, other] = await Promise.all([startPostgres({ major }), startPostgres({ major })])
    t.teardown(() => Promise.all([server.stop(), other.stop()]))
    const tools = chooseTools(found, major)
    await createHardDatabase(server.url, 'ha"rd = \'x')
    const source = parseConnection(server.url('ha"rd = \'x'))
    const before = { content: await databaseContent(server.url('ha"rd = \'x')), schema: await schemaOf(source, tools) }
    const shape = await withSql(source, { signal }, describeDatabase)
    t.equal(shape.serverMajor, major)

    const target = withDatabase(parseConnection(other.url()), 'new * "one" =')
    const lacking = await preflight(target, shape, signal)
    t.same(lacking.map(({ kind, name }) => `${kind} ${name}`), ['role Hard "Writer"', 'role hard_default', 'role hard_owner', 'role hard_reader'])
    const globals = await restoreGlobals(target, dumpGlobals({ connection: source, tools, withPasswords: true, signal }), signal)
    t.same(globals.failed, [])
    t.same(globals.skipped, ['ROLE postgres'])
    t.same(await preflight(target, shape, signal), [])

    for (const jobs of [1, 3]) {
      t.equal(await databaseExists(target, signal), false)
      t.same((await createDatabase(target, shape, signal)).warnings, [])
      const snapshot = await holdSnapshot(source, { signal })
      const [counts, report] = await Promise.all([
        snapshot.countRows(snapshot.relations, signal),
        restoreArchive({
          connection: target, tools, jobs, signal,
          source: dumpDatabase({ connection: source, tools, signal, snapshot: snapshot.id }),
        }),
      ])
      await snapshot.release()
      t.same(report.warnings, [])
      const content = await databaseContent(other.url(target.database))
      t.same(content, before.content)
      t.equal(await schemaOf(target, tools), before.schema)
      const rows = new Map(content.map((table) => [table.table, table.rows]))
      for (const { schema, name, rows: counted } of counts) t.equal(counted, rows.get(`${schema}.${name}`), `${schema}.${name}`)
      await dropDatabase(target, signal)
    }
  })
}
