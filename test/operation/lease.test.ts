import { setTimeout as wait } from 'node:timers/promises'
import { DrizzleQueryError } from '../../src/catalog/drizzle.js'
import postgres from 'postgres'
import t from 'tap'
import { createLog } from '../../src/log.js'
import { keepLease } from '../../src/operation/lease.js'
import { persist } from '../../src/operation/persist.js'

const listening = () => {
  let told = ''
  const log = createLog({ level: 'trace', human: false, stream: { write: (line: string) => (told += line) } as unknown as NodeJS.WritableStream })
  return { log, told: () => told }
}
// What drizzle throws: its text has the query and all values.
const failing = (code: string, message: string): DrizzleQueryError =>
  new DrizzleQueryError('update "backup_executions" set "progress" = $1', ['{"private": true}'], Object.assign(new postgres.PostgresError(message), { message, code }))

t.test('a lease that cannot be renewed is told with the reason, not with the query and its values', async (t) => {
  const { log, told } = listening()
  const lease = keepLease(() => Promise.reject(failing('42501', 'permission denied')), new AbortController().signal, log)
  await wait(2_300)
  await lease.release()
  t.match(told(), /"error":"permission denied".*renewing the lease failed/)
  t.notMatch(told(), /Failed query|private/)
  t.notOk(lease.signal.aborted, 'it may still be had')
})

t.test('the same of a write that waits for the catalog', async (t) => {
  const { log, told } = listening()
  let times = 0
  t.equal(await persist(async () => {
    if ((times += 1) === 1) throw failing('57P01', 'terminating connection')
    return times
  }, log), 2)
  t.match(told(), /"error":"terminating connection"/)
  t.notMatch(told(), /Failed query|private/)
})
