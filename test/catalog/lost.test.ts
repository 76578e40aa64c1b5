import { setTimeout as sleep } from 'node:timers/promises'
import { sql as raw } from '../../src/catalog/drizzle.js'
import t from 'tap'
import { openCatalog } from '../../src/catalog/connect.js'
import { silentLog } from '../../src/log.js'
import { Secret } from '../../src/secret.js'
import { never, serverFor } from './server.js'

// A process of its own would end when the driver throws where nobody can catch; so would this one.
t.test('a server that is killed while transactions are in flight ends them with errors, and the pool works again afterwards', async (t) => {
  const server = await serverFor(t)
  const catalog = await openCatalog({ databaseUrl: new Secret(server.url()), stateDir: '/nonexistent', log: silentLog(), signal: never })
  t.teardown(() => catalog.close())
  const { db, sql } = catalog
  for (const round of [1, 2]) {
    const waiting = db.transaction((tx) => tx.execute(raw`SELECT pg_sleep(60)`))
    const between = db.transaction(async (tx) => {
      await tx.execute(raw`SELECT 1`)
      await sleep(1500)
      await tx.execute(raw`SELECT 2`)
    })
    const nested = db.transaction((tx) => tx.transaction((inner) => inner.execute(raw`SELECT pg_sleep(60)`)))
    const plain = sql.begin((tx) => tx`SELECT pg_sleep(60)`)
    const all = Promise.allSettled([waiting, between, nested, plain])
    await sleep(500)
    await server.kill9()
    t.strictSame((await all).map(({ status }) => status), Array(4).fill('rejected'), `round ${round}`)
    await sleep(1000)
    await server.start()
    const deadline = Date.now() + 20_000
    const answers = await Promise.all(Array.from({ length: 12 }, async () => {
      for (;;) {
        try {
          return (await db.transaction((tx) => tx.execute<{ one: number }>(raw`SELECT 1 AS one`)))[0]?.one
        } catch (error) {
          if (Date.now() > deadline) throw error
          await sleep(100)
        }
      }
    }))
    t.strictSame(answers, Array(12).fill(1))
    t.equal((await sql`SELECT 1 AS one`)[0]?.['one'], 1)
  }
})
