import { createHash } from 'node:crypto'
import { writeAudit } from '../../audit/audit.js'
import { countDueLogs, lockDueLogs, logLines, settleArchived } from '../../catalog/audit-logs.js'
import type { Db } from '../../catalog/connect.js'
import { activeKeys } from '../../catalog/keys.js'
import type { StorageRow } from '../../catalog/storages.js'
import { codecs } from '../../compression/registry.js'
import { encrypt } from '../../encryption/age.js'
import { parseRecipient } from '../../encryption/keys.js'
import { BackupdError, messageOf, throwIfAborted } from '../../errors.js'
import { createDigest } from '../../pipeline/digest.js'
import { compressFrames, FRAME_WINDOW } from '../../pipeline/frames.js'
import { randomSuffix } from '../../repository/keys.js'
import type { ByteSource, Storage } from '../../storage/storage.js'
import { catalogTime } from '../settings/configure.js'
import type { Environment } from '../environment.js'
import { openStorageRow } from '../sources.js'
import { needStorage } from '../settings/storages.js'
import { shellWord } from '../../shell.js'

/** Folder of the archives below a storage's prefix; no backup's name looks like it. */
export const ARCHIVE_FOLDER = 'audit-archive'
/** Rows of one archive at most. They stay locked while it is stored. */
const BATCH = 10_000

/** One object with rows of `audit_logs`. */
export interface LogArchive {
  key: string
  /** Of the stored bytes; `<key>.sha256` holds it too, as sha256sum writes it. */
  sha256: string
  /** Stored bytes. */
  size: number
  rows: number
  first_id: number
  last_id: number
}

export interface Archiving {
  storage: string
  dry_run: boolean
  encrypted: boolean
  deleted: boolean
  /** Rows archived; in a dry run, those that are due. */
  rows: number
  archives: LogArchive[]
}

export interface ArchiveOptions {
  storage: string
  /** Removes the rows once they are stored and read back; else they are marked. */
  remove: boolean
  dryRun?: boolean
  /** Rows of one archive at most. */
  batch?: number
}

const jsonLines = async function* (tx: Db, ids: readonly number[]): ByteSource {
  for await (const line of logLines(tx, ids)) yield Buffer.from(`${line}\n`)
}

interface Destination {
  storage: Storage
  recipients: readonly string[]
  signal: AbortSignal
}

const store = async (key: string, plain: ByteSource, { storage, recipients, signal }: Destination): Promise<{ sha256: string; size: number }> => {
  const compressor = await codecs.zstd.compressor({ concurrency: FRAME_WINDOW })
  try {
    const digest = createDigest()
    let stream: ByteSource = compressFrames(plain, compressor, { signal })
    if (recipients.length > 0) stream = encrypt(stream, { recipients })
    await storage.write(key, digest.stage(stream), { signal })
    return { sha256: digest.sha256(), size: digest.bytes }
  } finally {
    await compressor.close()
  }
}

const readBack = async (key: string, expected: { sha256: string; size: number }, { storage, signal }: Destination): Promise<void> => {
  const hash = createHash('sha256')
  let size = 0
  for await (const block of storage.read(key, { signal })) {
    hash.update(block)
    size += block.length
  }
  if (size === expected.size && hash.digest('hex') === expected.sha256) return
  throw new BackupdError('audit.archive_damaged', `${storage.location(key)} is not what was stored: its size or SHA-256 differs; no row was marked`, {
    kind: 'integrity', hint: 'Look at the storage with "backupd storage test".', details: { key },
  })
}

const once = async function* (text: string): ByteSource {
  yield Buffer.from(text)
}

const nameOf = (now: Date, ids: readonly number[], encrypted: boolean): string =>
  `audit_logs-${now.toISOString().replace(/[-:]|\.\d+/g, '')}-${ids[0] ?? 0}-${ids.at(-1) ?? 0}-${randomSuffix()}.jsonl${codecs.zstd.suffix}${encrypted ? '.age' : ''}`

// What is removed here nobody counts on yet: the transaction that would mark the rows is not committed.
const discard = async ({ log }: Environment, { storage }: Destination, keys: readonly string[]): Promise<void> => {
  for (const key of keys) {
    await storage.remove(key, { signal: new AbortController().signal })
      .catch((error: unknown) => log.warn({ key, error: messageOf(error) }, 'what was stored of an archive that failed could not be removed'))
  }
}

const archiveBatch = (env: Environment, row: StorageRow, to: Destination, { remove, batch = BATCH }: ArchiveOptions): Promise<LogArchive | undefined> =>
  env.catalog.db.transaction(async (tx) => {
    await tx.execute(`SELECT set_config('idle_in_transaction_session_timeout', '0', true), set_config('statement_timeout', '0', true)`)
    const ids = await lockDueLogs(tx, batch)
    const [first] = ids
    const last = ids.at(-1)
    if (first === undefined || last === undefined) return undefined
    const name = nameOf(await catalogTime(tx), ids, to.recipients.length > 0)
    const key = `${ARCHIVE_FOLDER}/${name}`
    try {
      const stored = await store(key, jsonLines(tx, ids), to)
      await to.storage.write(`${key}.sha256`, once(`${stored.sha256}  ${name}\n`), { signal: to.signal })
      await readBack(key, stored, to)
      throwIfAborted(to.signal)
      const settled = await settleArchived(tx, ids, remove)
      if (settled !== ids.length) throw new Error(`${settled} rows of ${ids.length} could be marked`)
      const archive: LogArchive = { key, ...stored, rows: ids.length, first_id: first, last_id: last }
      await writeAudit(tx, {
        event_type: 'audit_logs.archived', event_category: 'access', action: remove ? 'delete' : 'update', actor: env.actor, risk_level: remove ? 'medium' : 'low',
        resource: { type: 'storage', id: row.id, name: row.name }, event_data: { ...archive, deleted: remove, encrypted: to.recipients.length > 0 },
      })
      return archive
    } catch (error) {
      await discard(env, to, [key, `${key}.sha256`])
      throw error
    }
  })

/**
 * Brings the rows of `audit_logs` that are past their `retention_until` into a storage, as JSON lines, compressed, and encrypted when there
 * are keys; then marks or removes them. A row is touched only after its archive was read back, in the transaction that its lock began with,
 * so that any number may do this at once. Fails with `storage.*` and `audit.archive_damaged`; batches that were finished before stay.
 */
export const archiveLogs = async (env: Environment, options: ArchiveOptions): Promise<Archiving> => {
  const row = await needStorage(env.catalog.db, options.storage)
  if (!row.is_active) throw new BackupdError('storage.disabled', `storage "${row.name}" is disabled`, { kind: 'configuration', hint: `Enable it with "backupd storage enable ${shellWord(row.name)}".` })
  const recipients = (await activeKeys(env.catalog.db)).map(({ recipient }) => parseRecipient(recipient))
  const result: Archiving = { storage: row.name, dry_run: options.dryRun === true, encrypted: recipients.length > 0, deleted: options.remove, rows: 0, archives: [] }
  const due = await countDueLogs(env.catalog.db)
  if (options.dryRun === true || due.rows === 0) return { ...result, rows: options.dryRun === true ? due.rows : 0 }
  const storage = await openStorageRow(env, row)
  try {
    const to = { storage, recipients, signal: env.signal }
    for (let archive = await archiveBatch(env, row, to, options); archive !== undefined; archive = await archiveBatch(env, row, to, options)) {
      result.archives.push(archive)
      result.rows += archive.rows
      env.log.info({ storage: row.name, key: archive.key, rows: archive.rows, deleted: options.remove }, 'audit_logs archived')
      throwIfAborted(env.signal)
    }
    return result
  } finally {
    await storage.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
  }
}
