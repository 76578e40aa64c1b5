import { z } from 'zod'
import { BackupdError } from '../errors.js'

const tableSchema = z.object({
  schema: z.string(),
  name: z.string(),
  /** Key of the part that holds its rows; null when the backup holds no rows. */
  part: z.string().nullable(),
  /** Rows in the dump's own snapshot; null when they could not be counted in it. */
  rows: z.number().int().nonnegative().nullable(),
})

const contentsSchema = z.object({
  format_version: z.literal(1),
  backup_id: z.string(),
  tables: z.array(tableSchema),
  large_objects: z.number().int().nonnegative().nullable(),
  /** What a new database must be like to hold this one. */
  database: z.object({
    name: z.string(),
    owner: z.string(),
    encoding: z.string(),
    collate: z.string(),
    ctype: z.string(),
    provider: z.enum(['libc', 'icu', 'builtin']),
    /** The locale of ICU or of the built-in provider. */
    locale: z.string().nullable(),
    icu_rules: z.string().nullable(),
  }),
  /** Roles that own things, are granted rights or have policies. */
  roles: z.array(z.string()),
  extensions: z.array(z.object({ name: z.string(), version: z.string() })),
  tablespaces: z.array(z.string()),
  /** Foreign keys whose target was left out by the patterns. */
  dangling_keys: z.array(z.object({ schema: z.string(), table: z.string(), constraint: z.string() })),
})

/** What `index.json` says: which table is in which part, how many rows, and what the target must provide. Private, so it is encrypted like the data. */
export type Contents = z.infer<typeof contentsSchema>

/** The index's text, as it is stored before compression and encryption. */
export const contentsText = (contents: Contents): string => `${JSON.stringify(contentsSchema.parse(contents))}\n`

/** Reads `index.json`; `key` names it in errors. Fails with `repository.index_invalid`. */
export const parseContents = (text: string, key: string): Contents => {
  try {
    return contentsSchema.parse(JSON.parse(text))
  } catch (error) {
    throw new BackupdError('repository.index_invalid', `${key} is not the index of a backup`, { kind: 'integrity', cause: error, details: { part: key } })
  }
}
