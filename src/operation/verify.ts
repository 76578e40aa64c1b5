import { BackupdError } from '../errors.js'
import { listArchive } from '../postgres/restore.js'
import type { Tools } from '../postgres/tools.js'
import { manifestKey } from '../repository/keys.js'
import { parseManifest, type Manifest, type Part } from '../repository/manifest.js'
import type { Secret } from '../secret.js'
import type { ByteSource, Storage } from '../storage/storage.js'
import { needIdentities, openPart, readManifest, readStored, type Opening } from './readback.js'

export const verifyLevels = ['checksum', 'archive'] as const
export type VerifyLevel = (typeof verifyLevels)[number]

/** One thing that is wrong with a backup. */
export interface Damage {
  part: string
  code: string
  reason: string
}

export interface Verification {
  level: VerifyLevel
  ok: boolean
  damage: Damage[]
  /** SHA-256 of the manifest as found, null when it could not be read. */
  checksum: string | null
  /** Stored bytes read back. */
  bytes: number
  parts: number
}

export interface VerifyRequest {
  storage: Storage
  backupId: string
  /** The manifest's SHA-256 and text as the catalog has them; null for a backup that the catalog did not make. */
  known: { checksum: string; text: string | null } | null
  level: VerifyLevel
  identities: readonly Secret[]
  /** For the archive level: chosen once the manifest tells the server's version. */
  tools: (manifest: Manifest) => Promise<Tools>
  onBytes(bytes: number): void
  onPart(): void
  signal: AbortSignal
}

// A failure to read is no damage: the network may be down. Only what says that the bytes are wrong is.
const asDamage = (error: unknown, part: string): Damage => {
  if (error instanceof BackupdError && error.kind === 'integrity') return { part, code: error.code, reason: error.message }
  throw error
}

const drain = async (source: AsyncIterator<Uint8Array>): Promise<void> => {
  while (!(await source.next()).done);
}

/** `iterator` as a source that can be left early without closing it. */
const borrowed = async function* (iterator: AsyncIterator<Uint8Array>): ByteSource {
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value
}

/** Has pg_restore list an archive, and reads it to its end in any case: what is wrong with the bytes is a better reason than what pg_restore makes of them. */
const listWhole = async (plain: ByteSource, part: Part, tools: Tools, signal: AbortSignal): Promise<void> => {
  const iterator = plain[Symbol.asyncIterator]()
  try {
    const entries = await listArchive(borrowed(iterator), { tools, signal })
    if (entries.length === 0) throw new BackupdError('integrity.empty', `${part.key}: pg_restore lists nothing in it`, { kind: 'integrity' })
  } catch (error) {
    if (!(error instanceof BackupdError) || error.code !== 'restore.archive' || signal.aborted) throw error
    await drain(iterator)
    throw new BackupdError('integrity.archive', `${part.key}: pg_restore cannot list it: ${error.message}`, { kind: 'integrity', cause: error })
  } finally {
    await iterator.return?.()
  }
}

const checkPart = async (request: VerifyRequest, opening: Opening, tools: Tools | undefined, part: Part): Promise<void> => {
  const stored = readStored(request.storage, part, request.signal, request.onBytes)
  if (tools === undefined) return drain(stored[Symbol.asyncIterator]())
  const plain = openPart(stored, part, opening)
  if (part.key.includes('.dump')) return listWhole(plain, part, tools, request.signal)
  return drain(plain[Symbol.asyncIterator]())
}

/**
 * Reads a backup back and compares it with what was stored. `checksum`: every part's SHA-256 with the manifest, the manifest's
 * with the catalog. `archive`: each part also decrypted, decompressed to its end, and listed by pg_restore.
 * Damage is a result, not an error; fails when the storage cannot be read or the key is not at hand.
 */
export const verify = async (request: VerifyRequest): Promise<Verification> => {
  const { storage, backupId, known, level, identities, signal } = request
  const damage: Damage[] = []
  let checksum: string | null = null
  let manifest: Manifest | undefined
  try {
    const read = await readManifest(storage, backupId, known?.checksum ?? null, signal)
    ;({ manifest, checksum } = read)
  } catch (error) {
    damage.push(asDamage(error, manifestKey(backupId)))
    // The parts are still looked at, by the catalog's own copy.
    if (known?.text !== null && known?.text !== undefined) manifest = parseManifest(known.text, manifestKey(backupId))
  }
  let bytes = 0
  const counting: VerifyRequest = {
    ...request,
    onBytes: (count) => {
      bytes += count
      request.onBytes(count)
    },
  }
  if (manifest !== undefined) {
    if (level === 'archive') await needIdentities(manifest, identities)
    const tools = level === 'archive' ? await request.tools(manifest) : undefined
    for (const part of manifest.parts) {
      try {
        await checkPart(counting, { manifest, identities, signal }, tools, part)
      } catch (error) {
        damage.push(asDamage(error, part.key))
      }
      request.onPart()
    }
  }
  return { level, ok: damage.length === 0, damage, checksum, bytes, parts: manifest?.parts.length ?? 0 }
}

/** The error that a damaged backup ends with. */
export const damagedError = (backupId: string, { damage }: Verification): BackupdError =>
  new BackupdError('integrity.corrupted', `backup ${backupId} is damaged: ${damage.map(({ reason }) => reason).join('; ')}`, {
    kind: 'integrity',
    hint: 'Do not rely on it: take a new backup now, and look at the storage.',
    details: { damage },
  })

