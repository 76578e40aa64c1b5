import { randomBytes } from 'node:crypto'

// RFC 4648 base32 in lower case: safe in every file system and object store, also those that fold case.
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567'
const LONGEST_SLUG = 60

/** Name of the object that makes a folder a backup. */
export const MANIFEST = 'manifest.json'

export const partKinds = ['globals', 'schema', 'data', 'database', 'index'] as const
export type PartKind = (typeof partKinds)[number]

/** `name` as it stands in a key: lower-case ASCII letters, digits and single hyphens. */
export const slug = (name: string): string => {
  const plain = name.normalize('NFKD').toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '')
  return plain.slice(0, LONGEST_SLUG).replace(/-+$/, '') || 'backup'
}

const utcStamp = (time: Date): string => time.toISOString().replace(/[-:]|\.\d+/g, '')

/** Six random base32 characters. */
export const randomSuffix = (): string => [...randomBytes(6)].map((byte) => ALPHABET[byte % 32]).join('')

/** A new `<UTC start>-<schedule slug>-<6 random base32 characters>`; it sorts by time to the second. */
export const newBackupId = (startedAt: Date, scheduleName: string): string =>
  `${utcStamp(startedAt)}-${slug(scheduleName)}-${randomSuffix()}`

const BACKUP_ID = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-([a-z0-9-]+)-([a-z2-7]{6})$/

/** The start time and slug that a backup_id carries, or undefined when it is none of ours. */
export const parseBackupId = (id: string): { startedAt: Date; slug: string } | undefined => {
  const match = BACKUP_ID.exec(id)
  if (match === null) return undefined
  const [, year, month, day, hour, minute, second, name] = match
  const startedAt = new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
  return Number.isNaN(startedAt.getTime()) ? undefined : { startedAt, slug: name ?? '' }
}

const partNames: Record<PartKind, string> = {
  globals: 'globals.sql',
  schema: 'schema.dump',
  data: 'data',
  database: 'database.dump',
  index: 'index.json',
}

/** Key of a part under the storage's prefix: what it is, then what was done to it, as suffixes. `number` counts data parts from 0. */
export const partKey = (backupId: string, kind: PartKind, stored: { suffix: string; encrypted: boolean }, number = 0): string => {
  const name = kind === 'data' ? `data-${String(number).padStart(4, '0')}.dump` : partNames[kind]
  return `${backupId}/${name}${stored.suffix}${stored.encrypted ? '.age' : ''}`
}

/** Key of the manifest of a backup. */
export const manifestKey = (backupId: string): string => `${backupId}/${MANIFEST}`
