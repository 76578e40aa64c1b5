import { sql } from '../../src/catalog/drizzle.js'
import t from 'tap'
import { BackupdError } from '../../src/errors.js'
import { errorDetails, errorMessage, recordedError } from '../../src/operation/failure.js'
import { catalogOn, serverFor } from '../catalog/server.js'

t.test('what the catalog\'s driver throws is recorded in our words, without the values of the statement', async (t) => {
  const server = await serverFor(t)
  const { db } = await catalogOn(t, server)
  const thrown: unknown = await db.execute(sql`SELECT 1 / (length(${'the value'}) - 9)`).catch((error: unknown) => error)
  t.match(thrown, { message: /the value/ }, 'as it comes it has them')
  t.match(errorDetails(thrown, 'prepare'), { code: 'catalog.failed', kind: 'configuration', retryable: false, sqlstate: '22012' })
  t.notMatch(JSON.stringify([errorDetails(thrown, 'prepare'), errorMessage(thrown)]), /the value|Failed query/)
  t.equal(errorMessage(thrown), 'the catalog of this run failed: division by zero')

  await server.kill9()
  const gone: unknown = await db.execute(sql`SELECT 1`).catch((error: unknown) => error)
  t.match(errorDetails(gone, 'prepare'), { code: 'catalog.unreachable', retryable: true }, 'worth another attempt')
})

t.test('an error is told again as it was recorded', (t) => {
  const error = new BackupdError('storage.denied', 'no right to write', { kind: 'configuration', hint: 'Grant it.', details: { bucket: 'b' } })
  t.match(recordedError(errorMessage(error), errorDetails(error, 'database')), { code: 'storage.denied', kind: 'configuration', message: 'no right to write', hint: 'Grant it.', details: { bucket: 'b', stage: 'database' } })
  t.match(recordedError(null, null), { code: 'failed', kind: 'failed' })
  t.end()
})
