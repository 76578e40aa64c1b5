import { sql as raw } from './drizzle.js'
import type { Sql } from './client.js'
import type { Db } from './connect.js'
import { jsonObject } from './json.js'

const channel = 'backupd_work'

/** What there is to look at: a queued or ended run, a request to cancel, a changed schedule, an alert to send. */
export const workKinds = ['execution', 'recovery', 'cancel', 'schedule', 'alert'] as const
export type WorkKind = (typeof workKinds)[number]

export interface Work {
  kind: WorkKind
  id: number
}

/** Wakes whoever listens, when the transaction is committed. */
export const notifyWork = async (db: Db, { kind, id }: Work): Promise<void> => {
  await db.execute(raw`SELECT pg_notify(${channel}, ${JSON.stringify({ kind, id })})`)
}

/**
 * Calls `onWork` for every notification until the returned function is called. The driver reconnects by itself; `onConnected` is
 * called each time it listens again, because what was said in between was missed.
 */
export const listenForWork = async (sql: Sql, onWork: (work: Work) => void, onConnected: () => void = () => undefined): Promise<() => Promise<void>> => {
  const { unlisten } = await sql.listen(channel, (payload) => {
    const { kind, id } = jsonObject(payload)
    const known = workKinds.find((one) => one === kind)
    if (known !== undefined && typeof id === 'number') onWork({ kind: known, id })
  }, onConnected)
  return unlisten
}
