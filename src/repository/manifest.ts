import { createHash } from 'node:crypto'
import { z } from 'zod'
import { compressionTypes } from '../compression/codec.js'
import { BackupdError } from '../errors.js'
import { partKinds } from './keys.js'

/** The version of the repository format that this program writes, and the highest that it reads. */
export const FORMAT_VERSION = 1

const sha256 = z.string().regex(/^[0-9a-f]{64}$/)
const bytes = z.number().int().nonnegative()

const partSchema = z.object({
  key: z.string().min(1),
  kind: z.enum(partKinds),
  /** Bytes of the plain stream. */
  plain_size: bytes,
  /** Bytes of the stored object. */
  stored_size: bytes,
  /** Of the stored bytes. */
  sha256,
  /** Frames of the compressed stream; 0 when it is not compressed. */
  frames: bytes,
})

const manifestSchema = z.object({
  format_version: z.literal(FORMAT_VERSION),
  backup_id: z.string().min(1),
  tool_version: z.string(),
  schedule: z.string().nullable(),
  source: z.string(),
  database: z.string(),
  server_version: z.string(),
  pg_dump_version: z.string(),
  started_at: z.iso.datetime(),
  completed_at: z.iso.datetime(),
  backup_type: z.string(),
  compression: z.enum(compressionTypes),
  compression_level: z.number().int().nullable(),
  /** age recipients; empty when the backup is not encrypted. */
  recipients: z.array(z.string()),
  parts: z.array(partSchema).min(1),
  /** Where the audit trail ended when the backup did; not in manifests of before 0.2, nor while the trail is empty. */
  audit_head: z.object({ chain: sha256, seq: z.number().int().positive(), hash: sha256 }).optional(),
})

export type Manifest = z.infer<typeof manifestSchema>
export type Part = Manifest['parts'][number]

/** The manifest's text, exactly as it is stored. */
export const manifestText = (manifest: Manifest): string => `${JSON.stringify(manifestSchema.parse(manifest), null, 2)}\n`

/** SHA-256 of a manifest's text, hex: what `backup_executions.checksum` holds. */
export const manifestChecksum = (text: string): string => createHash('sha256').update(text).digest('hex')

const unreadable = (key: string, why: string, cause?: unknown): BackupdError =>
  new BackupdError('repository.manifest_invalid', `${key} is not a manifest of a backup: ${why}`, { kind: 'integrity', cause, details: { part: key } })

/** Reads a manifest from its text; `key` names it in errors. Fails with `repository.manifest_invalid` or `repository.format_newer`. */
export const parseManifest = (text: string, key: string): Manifest => {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw unreadable(key, 'it is not JSON', error)
  }
  const version = (json as { format_version?: unknown } | null)?.format_version
  if (typeof version === 'number' && version > FORMAT_VERSION) {
    throw new BackupdError('repository.format_newer', `${key} has format version ${version}; this program reads up to ${FORMAT_VERSION}`, {
      kind: 'configuration',
      hint: 'Use the version of backupd that made it, or a later one.',
    })
  }
  const result = manifestSchema.safeParse(json)
  if (!result.success) {
    const issue = result.error.issues[0]
    throw unreadable(key, `${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}`.trim(), result.error)
  }
  return result.data
}

/** The part of `kind`, or undefined. */
export const partOfKind = (manifest: Manifest, kind: Part['kind']): Part | undefined => manifest.parts.find((part) => part.kind === kind)
