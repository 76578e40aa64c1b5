import { customType, foreignKey, timestamp, type AnyPgColumn, type ForeignKeyBuilder } from '../drizzle.js'

// PostgreSQL takes neither NUL nor half a surrogate pair in JSON text, and a program's error output may hold either.
const storableText = (text: string): string => text.replace(/\0/g, '').replace(/\p{Surrogate}/gu, '\ufffd')

const storable = (_key: string, value: unknown): unknown => {
  if (typeof value === 'string') return storableText(value)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [storableText(key), item as unknown]))
}

/** JSON text of a value that any JSON column takes. */
export const jsonText = (value: unknown): string => JSON.stringify(value, storable)

/**
 * A JSON column. It is `jsonb` in tables of ours and `json` in tables adopted from the other application; the value goes out as
 * JSON text, which both take, and comes back parsed by the driver. Its content may be anybody's: parse it, never trust it.
 */
export const json = customType<{ data: unknown; driverData: unknown }>({
  dataType: () => 'jsonb',
  toDriver: jsonText,
  fromDriver: (value) => value,
})

/** A point in time, as a Date. */
export const instant = (name: string) => timestamp(name, { withTimezone: true, mode: 'date' })

/** A foreign key to the `id` of another table, under the name that PostgreSQL itself gives, as the other application's have. */
export const references = (
  table: string, column: AnyPgColumn, id: () => AnyPgColumn, onDelete?: 'cascade' | 'set null',
): ForeignKeyBuilder => {
  const key = foreignKey({ name: `${table}_${column.name}_fkey`, columns: [column], foreignColumns: [id()] })
  return onDelete === undefined ? key : key.onDelete(onDelete)
}
