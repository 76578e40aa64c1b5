import type { Secret } from '../secret.js'
import { withOneConnection } from './migrate.js'

/**
 * Does `work` unless another process is doing something under the same `name`: one at a time over everybody who shares the catalog, for
 * as long as the connection holds. Undefined: somebody else is at it.
 */
export const exclusively = <T>(url: Secret, name: string, work: () => Promise<T>): Promise<{ result: T } | undefined> =>
  withOneConnection(url, async (sql) => {
    const [row] = await sql<{ taken: boolean }[]>`SELECT pg_try_advisory_lock(hashtext(${`backupd ${name}`})) AS taken`
    return row?.taken === true ? { result: await work() } : undefined
  }, 'backupd')
