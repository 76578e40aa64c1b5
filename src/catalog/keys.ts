import { and, asc, count, eq, isNull, like, or, sql } from './drizzle.js'
import { BackupdError } from '../errors.js'
import type { Db } from './connect.js'
import { insertNamed } from './names.js'
import { backupExecutions, backupKeys } from './schema.js'

export type Key = typeof backupKeys.$inferSelect
export type NewKey = typeof backupKeys.$inferInsert

/** All keys, retired ones too, by name. */
export const listKeys = (db: Db): Promise<Key[]> => db.select().from(backupKeys).orderBy(asc(backupKeys.name))

/** The keys that new backups are encrypted to, by name. */
export const activeKeys = (db: Db): Promise<Key[]> =>
  db.select().from(backupKeys).where(isNull(backupKeys.retired_at)).orderBy(asc(backupKeys.name))

/** The key of exactly this name. */
export const findKey = async (db: Db, name: string): Promise<Key | undefined> =>
  (await db.select().from(backupKeys).where(eq(backupKeys.name, name)))[0]

export const keyById = async (db: Db, id: number): Promise<Key | undefined> =>
  (await db.select().from(backupKeys).where(eq(backupKeys.id, id)))[0]

/** Fails with `key.exists`, also when only the recipient is there already. */
export const insertKey = (db: Db, key: NewKey): Promise<Key> =>
  insertNamed(db, 'key', key.name,
    async (tx) => {
      const [found] = await tx.select().from(backupKeys).where(or(eq(backupKeys.name, key.name), eq(backupKeys.recipient, key.recipient)))
      if (found === undefined || found.name === key.name) return found
      throw new BackupdError('key.exists', `this public key is there already, under the name ${found.name}`, { kind: 'usage', details: { name: found.name } })
    },
    (tx) => tx.insert(backupKeys).values(key).returning())

/** New backups are not encrypted to this key any more. The row, or undefined when it was retired before. */
export const retireKey = async (db: Db, id: number): Promise<Key | undefined> =>
  (await db.update(backupKeys).set({ retired_at: sql`now()` }).where(and(eq(backupKeys.id, id), isNull(backupKeys.retired_at))).returning())[0]

// The hash of a backup to several keys is one of them all; its manifest names each.
/** How many executions were encrypted to the key, alone or with others. */
export const usesOfKey = async (db: Db, { fingerprint, recipient }: Pick<Key, 'fingerprint' | 'recipient'>): Promise<{ executions: number }> => {
  const [found] = await db.select({ n: count() }).from(backupExecutions)
    .where(or(
      like(backupExecutions.encryption_key_hash, `%${fingerprint.replace(/[\\%_]/g, '\\$&')}%`),
      sql`position(${recipient} IN execution_metadata ->> 'manifest') > 0`,
    ))
  return { executions: found?.n ?? 0 }
}

/** Removes a key's record; what was encrypted to it stays readable for who has the private key. */
export const removeKey = async (db: Db, id: number): Promise<Key | undefined> =>
  (await db.delete(backupKeys).where(eq(backupKeys.id, id)).returning())[0]
