import { BackupdError } from '../errors.js'
import { matches, parsePattern } from './patterns.js'
import type { DanglingKey } from './selection.js'
import type { ArchiveContents, ArchiveEntry } from './toc.js'

export interface ChoiceOptions {
  /** Patterns; undefined or empty means all. */
  tables?: readonly string[] | undefined
  /** Restore also what tables need and is not a table: schemas, types, functions, extensions. For a new database. */
  prerequisites: boolean
  /** Foreign keys to leave out, as the backup recorded them. */
  danglingKeys?: readonly DanglingKey[] | undefined
}

export interface Choice {
  /** Entries to restore; undefined: the whole archive. */
  ids: number[] | undefined
  /** Tables whose rows are among them; undefined: all that the archive has. */
  filled: { schema: string; name: string }[] | undefined
  warnings: string[]
}

const relations = new Set(['TABLE', 'VIEW', 'MATERIALIZED VIEW', 'FOREIGN TABLE', 'SEQUENCE'])
// What is part of a relation and comes and goes with it.
const parts = new Set([
  'TABLE DATA', 'SEQUENCE SET', 'SEQUENCE OWNED BY', 'MATERIALIZED VIEW DATA', 'DEFAULT', 'INDEX', 'INDEX ATTACH', 'TABLE ATTACH', 'CONSTRAINT',
  'CHECK CONSTRAINT', 'FK CONSTRAINT', 'TRIGGER', 'RULE', 'POLICY', 'ROW SECURITY', 'STATISTICS', 'STATISTICS DATA', 'COMMENT', 'ACL', 'SECURITY LABEL',
])
// Of the whole database, not of any table.
const databaseWide = new Set([
  'BLOB', 'BLOBS', 'BLOB METADATA', 'BLOB COMMENTS', 'LARGE OBJECT', 'EVENT TRIGGER', 'PUBLICATION', 'PUBLICATION TABLE', 'PUBLICATION TABLES IN SCHEMA',
  'SUBSCRIPTION', 'SUBSCRIPTION TABLE', 'DATABASE', 'DATABASE PROPERTIES',
])
const settings = new Set(['ENCODING', 'STDSTRINGS', 'SEARCHPATH'])

const index = (entries: readonly ArchiveEntry[]): Map<number, ArchiveEntry[]> => {
  const found = new Map<number, ArchiveEntry[]>()
  for (const entry of entries) {
    for (const need of entry.needs) {
      const list = found.get(need)
      if (list === undefined) found.set(need, [entry])
      else list.push(entry)
    }
  }
  return found
}

const spread = (start: Iterable<ArchiveEntry>, next: (entry: ArchiveEntry) => Iterable<ArchiveEntry>): Set<ArchiveEntry> => {
  const found = new Set(start)
  for (const entry of found) for (const other of next(entry)) found.add(other)
  return found
}

const name = '(?:"(?:[^"]|"")+"|[^\\s".(]+)'
const referenced = new RegExp(`REFERENCES (${name})\\.(${name})\\(`, 'g')
const unquote = (text: string): string => (text.startsWith('"') ? text.slice(1, -1).replaceAll('""', '"') : text)

// Keys whose target the archive does not hold, or holds without its rows though it holds others'.
const deadKeys = (entries: readonly ArchiveEntry[], recorded: readonly DanglingKey[]): Set<ArchiveEntry> => {
  const label = (schema: string, tag: string): string => JSON.stringify([schema, tag])
  const of = (type: string) => new Set(entries.filter((entry) => entry.type === type).map(({ schema, tag }) => label(schema, tag)))
  const filled = of('TABLE DATA')
  const partitioned = new Set(entries.filter(({ definition }) => /\nPARTITION BY /.test(definition)).map(({ schema, tag }) => label(schema, tag)))
  const tables = of('TABLE')
  const named = new Set(recorded.map(({ schema, table, constraint }) => label(schema, `${table} ${constraint}`)))
  return new Set(entries.filter(({ type, schema, tag, definition }) => {
    if (type !== 'FK CONSTRAINT') return false
    if (named.has(label(schema, tag))) return true
    const target = [...definition.matchAll(referenced)].at(-1)
    if (target?.[1] === undefined || target[2] === undefined || tables.size === 0) return false
    const table = label(unquote(target[1]), unquote(target[2]))
    return !tables.has(table) || (filled.size > 0 && !filled.has(table) && !partitioned.has(table))
  }))
}

const chosenTables = (entries: readonly ArchiveEntry[], texts: readonly string[], warnings: string[]): Set<ArchiveEntry> => {
  const found = new Set<ArchiveEntry>()
  for (const text of texts) {
    const pattern = parsePattern(text)
    const hits = entries.filter(({ type, schema, tag }) => relations.has(type) && matches(pattern, { schema, name: tag }))
    if (hits.length === 0) warnings.push(`the table pattern ${text} matches nothing in the backup`)
    for (const hit of hits) found.add(hit)
  }
  if (found.size > 0) return found
  throw new BackupdError('restore.nothing_chosen', `no table of the backup matches ${texts.join(', ')}`, {
    kind: 'usage',
    hint: 'Correct the patterns; upper and lower case are different in them.',
  })
}

const narrow = (entries: readonly ArchiveEntry[], texts: readonly string[], prerequisites: boolean, warnings: string[]): Set<ArchiveEntry> => {
  const byId = new Map(entries.map((entry) => [entry.id, entry]))
  const dependents = index(entries)
  const after = ({ id }: ArchiveEntry): ArchiveEntry[] => dependents.get(id) ?? []
  const before = ({ needs }: ArchiveEntry): ArchiveEntry[] => needs.flatMap((id) => byId.get(id) ?? [])
  // Down to partitions and children, which are tables that need the parent or are attached to it.
  const chosen = spread(chosenTables(entries, texts, warnings), (entry) => [
    ...(entry.type === 'TABLE' ? after(entry).filter(({ type }) => type === 'TABLE') : []),
    ...after(entry).filter(({ type }) => type === 'TABLE ATTACH').flatMap(before).filter((other) => other.type === 'TABLE' && isPartition(entry, other, after)),
  ])
  // And with the sequences of their columns.
  const owned = new Set([...chosen].flatMap(after).filter(({ type }) => type === 'SEQUENCE' || type === 'SEQUENCE OWNED BY')
    .flatMap((entry) => (entry.type === 'SEQUENCE' ? [entry] : before(entry).filter(({ type }) => type === 'SEQUENCE'))))
  for (const sequence of owned) chosen.add(sequence)
  // Up to what a definition cannot do without: an inherited table, a view's tables, the sequence of a default.
  const defaults = [...chosen].flatMap(after).filter(({ type }) => type === 'DEFAULT')
  const needed = prerequisites ? spread([...chosen, ...defaults], (entry) => before(entry)) : chosen
  for (const { schema, tag } of [...needed].filter((entry) => entry.type === 'TABLE' && !chosen.has(entry))) {
    warnings.push(`the table ${schema}.${tag} is made without its rows: it was not chosen, and what was cannot be made without it`)
  }
  const isKept = (entry: ArchiveEntry): boolean => chosen.has(entry) || needed.has(entry)
  const lost = spread(entries.filter((entry) => databaseWide.has(entry.type) || (relations.has(entry.type) && !isKept(entry))), (entry) => after(entry).filter((other) => !isKept(other)))
  const belongs = (entry: ArchiveEntry): boolean => {
    const owners = before(entry)
    if (entry.type === 'TABLE DATA' || entry.type === 'MATERIALIZED VIEW DATA' || entry.type === 'SEQUENCE SET') return owners.some((owner) => chosen.has(owner) || (owner.type === 'SEQUENCE' && needed.has(owner)))
    return owners.some((owner) => isKept(owner) || (parts.has(owner.type) && belongs(owner)))
  }
  return new Set(entries.filter((entry) => {
    if (settings.has(entry.type)) return true
    if (lost.has(entry)) return false
    if (relations.has(entry.type)) return isKept(entry)
    if (parts.has(entry.type) && before(entry).some((owner) => relations.has(owner.type) || parts.has(owner.type))) return belongs(entry)
    return prerequisites
  }))
}

// Of a pair that an attachment names, the partition is the one that was written without partitions of the other.
const isPartition = (parent: ArchiveEntry, other: ArchiveEntry, after: (entry: ArchiveEntry) => ArchiveEntry[]): boolean =>
  other !== parent && after(other).some(({ type, tag, schema }) => type === 'TABLE ATTACH' && tag === other.tag && schema === other.schema)

/** Which entries of an archive to restore. Fails with `pattern.invalid` or `restore.nothing_chosen`. */
export const chooseEntries = ({ entries }: ArchiveContents, options: ChoiceOptions): Choice => {
  const warnings: string[] = []
  const tables = options.tables ?? []
  const dead = options.prerequisites ? deadKeys(entries, options.danglingKeys ?? []) : new Set<ArchiveEntry>()
  if (tables.length === 0 && dead.size === 0) return { ids: undefined, filled: undefined, warnings }
  for (const key of dead) warnings.push(`the foreign key ${key.schema}.${key.tag} is not restored: its target is not in the backup`)
  const kept = tables.length === 0 ? new Set(entries) : narrow(entries, tables, options.prerequisites, warnings)
  const keys = entries.filter(({ type }) => type === 'FK CONSTRAINT')
  const lostKeys = tables.length === 0 ? [] : keys.filter((key) => !kept.has(key) && !dead.has(key) && ownerKept(key, entries, kept))
  for (const key of lostKeys) warnings.push(`the foreign key ${key.schema}.${key.tag} is not restored: its target is not among the tables`)
  const chosen = entries.filter((entry) => kept.has(entry) && !dead.has(entry))
  const filled = chosen.filter(({ type }) => type === 'TABLE DATA').map(({ schema, tag }) => ({ schema, name: tag }))
  return { ids: chosen.map(({ id }) => id), filled: tables.length === 0 ? undefined : filled, warnings }
}

const ownerKept = (key: ArchiveEntry, entries: readonly ArchiveEntry[], kept: ReadonlySet<ArchiveEntry>): boolean =>
  entries.some((entry) => entry.type === 'TABLE' && kept.has(entry) && key.needs.includes(entry.id) && key.schema === entry.schema && key.tag.startsWith(`${entry.tag} `))
