import { createRequire } from 'node:module'
import type * as Base from 'drizzle-orm'
import type * as Core from 'drizzle-orm/pg-core'
import type * as Driver from 'drizzle-orm/postgres-js'

// Drizzle, in its CommonJS form. As ES modules, Node from 22 on reads drizzle's package.json, which has 180 KB, again for each of its many
// modules: measured on Node 24, 440 ms and 150 MB of garbage for every start of the program, against 70 ms and next to none like this.
const load = createRequire(import.meta.url)

export const {
  DrizzleQueryError, SQL, and, asc, count, desc, eq, getTableColumns, gt, gte, inArray, is, isNotNull, isNull, like, lt, lte, ne, not, notInArray, or, sql,
} = load('drizzle-orm') as typeof Base
export const {
  PgDialect, PgTable, PgTransaction, bigint, boolean, customType, doublePrecision, foreignKey, getTableConfig, index, integer, pgTable, serial, text,
  timestamp, unique, uniqueIndex, varchar,
} = load('drizzle-orm/pg-core') as typeof Core
export const { drizzle } = load('drizzle-orm/postgres-js') as typeof Driver

// Names of classes are types too.
export type SQL<T = unknown> = Base.SQL<T>
export type DrizzleQueryError = Base.DrizzleQueryError
export type { AnyPgColumn, ForeignKeyBuilder, PgDatabase } from 'drizzle-orm/pg-core'
export type { PostgresJsDatabase, PostgresJsQueryResultHKT } from 'drizzle-orm/postgres-js'
