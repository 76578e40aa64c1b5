import { sql } from './drizzle.js'
import type { Db } from './connect.js'

/** Runs reading `work` whose statements may each take `seconds` at most: tables of other applications may be of any size. */
export const bounded = <T>(db: Db, seconds: number, work: (tx: Db) => Promise<T>): Promise<T> =>
  db.transaction(async (tx) => {
    await tx.execute(sql`SELECT set_config('statement_timeout', ${`${seconds}s`}, true)`)
    return work(tx)
  })
