import type t from 'tap'
import { connectTo, type Sql } from '../../src/catalog/client.js'
import { openCatalog, type Catalog } from '../../src/catalog/connect.js'
import { silentLog } from '../../src/log.js'
import { Secret } from '../../src/secret.js'
import { startPostgres, type TestServer } from '../support/postgres-server.js'

type Test = Pick<typeof t, 'teardown'>

/** Never aborted. */
export const never = new AbortController().signal

/** A server for one test file, stopped at its end. */
export const serverFor = async (test: Test): Promise<TestServer> => {
  const server = await startPostgres()
  test.teardown(() => server.stop())
  return server
}

let number = 0

/** A new empty database on `server` (or one made from `ddl`) and a connection to it, closed at the end of the test. */
export const databaseOn = async (test: Test, server: TestServer, ddl = ''): Promise<{ url: Secret; sql: Sql; name: string }> => {
  const name = `catalog_${process.pid}_${(number += 1)}`
  const admin = connectTo(new Secret(server.url()), 1)
  await admin.unsafe(`CREATE DATABASE ${name}`)
  await admin.end()
  const url = new Secret(server.url(name))
  const sql = connectTo(url, 2)
  test.teardown(() => sql.end())
  if (ddl !== '') await sql.unsafe(ddl)
  return { url, sql, name }
}

/** An open catalog in a database of its own; with `ddl`, one in which the application's tables were there first. */
export const catalogOn = async (test: Test, server: TestServer, ddl = ''): Promise<Catalog> => {
  const { url } = await databaseOn(test, server, ddl)
  const catalog = await openCatalog({ databaseUrl: url, stateDir: '/nonexistent', log: silentLog(), signal: never })
  test.teardown(() => catalog.close())
  return catalog
}
