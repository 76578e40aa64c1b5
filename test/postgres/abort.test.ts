import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { parseConnection } from '../../src/postgres/connection.js'
import { openSql } from '../../src/postgres/sql.js'
import { startPostgres } from '../support/postgres-server.js'

const sockets = (): number => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length

t.test('a connection that is given up, at whatever moment, keeps no process alive', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const connection = parseConnection(server.url())
  const before = sockets()
  for (let delay = 0; delay < 40; delay += 0.5) {
    const stop = new AbortController()
    const opening = openSql(connection, { signal: stop.signal }).then((sql) => sql.query`SELECT pg_sleep(0.01)`).catch(() => undefined)
    await wait(delay)
    stop.abort()
    await opening
  }
  for (const until = Date.now() + 5_000; sockets() > before && Date.now() < until; ) await wait(50)
  t.equal(sockets(), before)
})
