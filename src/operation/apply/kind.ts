import type { z } from 'zod'
import type { Db } from '../../catalog/connect.js'
import { BackupdError } from '../../errors.js'
import { keepRules, type About, type Changed, type Rule } from '../settings/configure.js'
import type { Environment } from '../environment.js'

/** An object of a configuration: known by its name. */
export interface Named {
  name: string
}

/** An object that the catalog holds, in the form of the file. */
export interface Existing<D extends Named, R = unknown> {
  id: number
  doc: D
  row: R
  /** Why `--prune` leaves it alone, where it does. */
  kept?: string
}

/** What is wrong with an object: the field, and the error that says so. */
export interface Finding {
  field: string
  error: BackupdError
}

/** What an object is looked at with. */
export interface Scope {
  env: Environment
  tx: Db
  /** Whether the file names such an object, or the catalog has one. */
  known(type: About['type'], name: string): boolean
  /** Says something that is no reason to stop. */
  warn(text: string): void
}

/** One kind of object: how the file writes it, and what the catalog makes of it. One file each, one line in `apply-kinds.ts`. */
export interface Kind<D extends Named = Named, R = unknown> {
  /** The list in the file that holds them. */
  section: string
  type: About['type']
  /** An object in the file. */
  schema: z.ZodType
  /** What fields have that the file leaves out. */
  defaults: Readonly<Record<string, unknown>>
  /** Fields that an object may have at `path`, for who has mistyped one. */
  fields(item: Readonly<Record<string, unknown>>, path: readonly (string | number)[]): readonly string[]
  /** All that the catalog holds, but for what is none of the file's business. */
  read(env: Environment, tx: Db): Promise<Existing<D, R>[]>
  /** The object as the file means it: references that are followed when it is applied, followed. Fails with the error of the first that cannot be. */
  prepare(scope: Scope, item: D, existing: Existing<D, R> | undefined): Promise<D>
  /** All that is wrong with an object that is new or differs in `fields`. */
  check(scope: Scope, doc: D, existing: Existing<D, R> | undefined, fields: readonly string[]): Promise<Finding[]>
  create(scope: Scope, doc: D): Promise<Changed<unknown>>
  change(scope: Scope, existing: Existing<D, R>, doc: D, fields: readonly string[]): Promise<Changed<unknown>>
  remove(scope: Scope, existing: Existing<D, R>): Promise<Changed<unknown>>
  /** What has to hold when everything is done, where any object of this kind was changed or removed. */
  settle?(scope: Scope): Promise<void>
}

/** The rules that are broken, each with its field. */
export const brokenRules = async (rules: readonly Rule[]): Promise<Finding[]> => {
  const found: Finding[] = []
  for (const rule of rules) {
    try {
      await keepRules([rule])
    } catch (error) {
      if (!(error instanceof BackupdError)) throw error
      found.push({ field: rule.field, error })
    }
  }
  return found
}

/** A reference to something that is neither in the file nor in the catalog. */
export const unknownName = (field: string, type: About['type'], name: string): Finding =>
  ({ field, error: new BackupdError(`${type}.unknown`, `there is no ${type} "${name}", neither in this file nor in the catalog`, { kind: 'notFound' }) })
