import { sql } from './drizzle.js'
import { BackupdError } from '../errors.js'
import type { Db } from './connect.js'

/**
 * The one row of several found under a name. Names of schedules and storages are not unique in the shared tables; two of the same
 * name fail with `catalog.ambiguous`.
 */
export const onlyOne = <T>(rows: readonly T[], what: string, name: string): T | undefined => {
  if (rows.length < 2) return rows[0]
  throw new BackupdError('catalog.ambiguous', `there are ${rows.length} ${what}s named ${name}`, {
    kind: 'usage', hint: 'Rename all but one of them in the catalog.', details: { what, name },
  })
}

/** Inserts under a name that must be free, also when several processes try at once. Fails with `<what>.exists`. */
export const insertNamed = <T>(
  db: Db, what: string, name: string, find: (tx: Db) => Promise<unknown>, insert: (tx: Db) => Promise<T[]>,
): Promise<T> =>
  db.transaction(async (tx) => {
    await tx.execute(sql`SELECT pg_advisory_xact_lock(hashtext(${`backupd ${what} ${name}`}))`)
    if ((await find(tx)) !== undefined) {
      throw new BackupdError(`${what}.exists`, `there is a ${what} named ${name} already`, { kind: 'usage', details: { name } })
    }
    const [row] = await insert(tx)
    if (row === undefined) throw new BackupdError('catalog.failed', `the ${what} ${name} was not stored`)
    return row
  })
