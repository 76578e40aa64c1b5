import { BackupdError } from '../errors.js'
import { exactly, matches, parsePattern } from './patterns.js'
import type { Relation } from './relations.js'

/** A constraint of a dumped table that points at one that is not dumped. */
export interface DanglingKey {
  schema: string
  table: string
  constraint: string
}

/** What of a database goes into a backup. */
export interface Selection {
  /** Some patterns are in effect. */
  partial: boolean
  /** Only what include patterns mean, so no large objects. */
  onlyIncluded: boolean
  /** In the dump, with their rows where they have any. */
  relations: Relation[]
  /** In the dump without rows, because something dumped cannot be created without them: parents, or the argument of a function. */
  withoutRows: Relation[]
  excluded: Relation[]
  danglingKeys: DanglingKey[]
  /** For people. */
  warnings: string[]
}

const nameOf = ({ schema, name }: Relation): string => `${schema}.${name}`

const spread = (start: Iterable<Relation>, next: (relation: Relation) => Iterable<Relation>): Set<Relation> => {
  const found = new Set(start)
  for (const relation of found) for (const other of next(relation)) found.add(other)
  return found
}

// By oid, those whose `oids` name it.
const index = (all: readonly Relation[], oids: (relation: Relation) => number[]): ((relation: Relation) => Relation[]) => {
  const found = new Map<number, Relation[]>()
  for (const relation of all) for (const oid of oids(relation)) found.set(oid, [...(found.get(oid) ?? []), relation])
  return ({ oid }) => found.get(oid) ?? []
}

const isRelation = (relation: Relation | undefined): relation is Relation => relation !== undefined

/**
 * Applies include and exclude patterns to the relations of a database. A pattern on a partitioned table or a parent means its
 * partitions and children too; a view is left out with what it reads. A pattern that matches nothing is a warning; includes that
 * match nothing at all are `dump.nothing_included`.
 */
export const selectRelations = (all: readonly Relation[], include: readonly string[], exclude: readonly string[]): Selection => {
  const warnings: string[] = []
  const byOid = new Map(all.map((relation) => [relation.oid, relation]))
  const children = index(all, ({ parents }) => parents)
  const viewsOf = index(all, ({ reads }) => reads)
  const foundations = (relation: Relation) => [...relation.parents, ...relation.reads].map((oid) => byOid.get(oid)).filter(isRelation)
  const meant = (texts: readonly string[], kind: string): Set<Relation> => {
    const found = new Set<Relation>()
    for (const text of texts) {
      const pattern = parsePattern(text)
      const hits = all.filter((relation) => matches(pattern, relation))
      if (hits.length === 0) warnings.push(`the ${kind} pattern ${text} matches no table`)
      for (const hit of hits) found.add(hit)
    }
    return spread(found, children)
  }
  const included = meant(include, 'include')
  const excluded = meant(exclude, 'exclude')
  if (include.length > 0 && included.size === 0) {
    throw new BackupdError('dump.nothing_included', `no table matches ${include.join(', ')}`, {
      kind: 'configuration',
      hint: 'Correct the include patterns of the schedule; upper and lower case are different in them.',
    })
  }
  const onlyIncluded = include.length > 0
  // A sequence goes with the table that owns it; one on its own may be a default of any table, so only an exclude pattern drops it.
  const wanted = new Set(
    all.filter((relation) => !excluded.has(relation) && (!onlyIncluded || included.has(relation) || relation.kind === 'sequence')),
  )
  const blind = spread(all.filter((relation) => !wanted.has(relation)), viewsOf)
  for (const view of wanted) {
    if (!blind.has(view)) continue
    wanted.delete(view)
    warnings.push(`the view ${nameOf(view)} is left out, because it reads a table that is`)
  }
  const kept = new Set([...wanted].map(({ oid }) => oid))
  const relations = [...wanted].filter(({ ownedBy }) => ownedBy === null || kept.has(ownedBy))
  const dumped = new Set(relations)
  const needed = all.filter((relation) => !dumped.has(relation) && relation.neededBy.some(({ table }) => table === null || kept.has(table)))
  for (const relation of needed) {
    warnings.push(`${nameOf(relation)} is left out with its rows only: ${relation.neededBy[0]?.what ?? 'something'} cannot be made without it`)
  }
  const withoutRows = [...spread([...relations, ...needed], foundations)].filter((relation) => !dumped.has(relation))
  const filled = new Set(relations.map(({ oid }) => oid))
  const present = new Set([...filled, ...withoutRows.map(({ oid }) => oid)])
  const danglingKeys = relations.flatMap((relation) =>
    relation.references
      .filter(({ table }) => byOid.has(table) && !filled.has(table))
      .map(({ constraint }) => ({ schema: relation.schema, table: relation.name, constraint })),
  )
  for (const { schema, table, constraint } of danglingKeys) {
    warnings.push(`the foreign key ${constraint} of ${schema}.${table} points at a table that is left out, and is not restored`)
  }
  const partial = include.length > 0 || exclude.length > 0
  return {
    partial, onlyIncluded, relations, withoutRows, danglingKeys, warnings,
    excluded: all.filter((relation) => !present.has(relation.oid) && !(relation.ownedBy !== null && present.has(relation.ownedBy))),
  }
}

/**
 * pg_dump's arguments for a selection. What is left out is named, rather than what is kept, because -t would also leave out the
 * schemas, types, functions and extensions that the tables need.
 */
export const selectionArguments = (selection: Selection): string[] => [
  ...selection.excluded.map((relation) => `--exclude-table=${exactly(relation)}`),
  ...selection.withoutRows.map((relation) => `--exclude-table-data=${exactly(relation)}`),
  ...(selection.onlyIncluded ? ['--no-blobs'] : []),
]
