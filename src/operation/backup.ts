import type { AuditHead } from '../audit/anchor.js'
import { codecs } from '../compression/registry.js'
import { BackupdError } from '../errors.js'
import { keyHash } from '../encryption/keys.js'
import { FRAME_WINDOW } from '../pipeline/frames.js'
import { createThrottle } from '../pipeline/throttle.js'
import { withWatchdog } from '../pipeline/watchdog.js'
import { contentsText, type Contents } from '../repository/contents.js'
import { manifestKey, type PartKind } from '../repository/keys.js'
import { FORMAT_VERSION, manifestChecksum, manifestText, type Manifest, type Part } from '../repository/manifest.js'
import type { ByteSource, Storage } from '../storage/storage.js'
import { version } from '../version.js'
import type { Lease } from './lease.js'
import { writePart, type PartWriter } from './part.js'
import type { BackupPlan } from './plan.js'
import type { Tracker } from './progress.js'
import { readSource, type SourceReading } from './reading.js'

/** A backup that is whole in its storage. */
export interface StoredBackup {
  manifest: Manifest
  /** The manifest as stored. */
  text: string
  /** SHA-256 of `text`. */
  checksum: string
  keyHash: string | null
  plainSize: number
  storedSize: number
}

export interface BackupRun {
  backupId: string
  startedAt: Date
  plan: BackupPlan
  storage: Storage
  tracker: Tracker
  lease: Lease
  /** Milliseconds without a byte before the run is ended. */
  stallTimeout: number
  /** Where the audit trail ends; noted in the manifest, out of reach of who can write to the catalog. */
  auditHead(): Promise<AuditHead | undefined>
}

const once = async function* (text: string): ByteSource {
  yield Buffer.from(text)
}

const openWriter = async (run: BackupRun, signal: AbortSignal): Promise<PartWriter> => {
  const { plan, storage, tracker, backupId } = run
  const codec = codecs[plan.compression]
  const compressor = await codec.compressor({ concurrency: FRAME_WINDOW, ...(plan.compressionLevel === undefined ? {} : { level: plan.compressionLevel }) })
  return {
    backupId, storage, codec, compressor,
    recipients: plan.recipients,
    throttle: plan.bandwidthMbps === undefined ? undefined : createThrottle(plan.bandwidthMbps),
    onBytes: (bytes) => tracker.moved(bytes),
    signal,
  }
}

const writeParts = async (run: BackupRun, reading: SourceReading, writer: PartWriter, onStall: (error: BackupdError) => void): Promise<Part[]> => {
  const { plan, tracker, stallTimeout } = run
  const parts: Part[] = []
  const store = async (kind: PartKind, plain: ByteSource): Promise<Part> => {
    tracker.enter(kind)
    const part = await writePart(writer, kind, withWatchdog(plain, { timeout: stallTimeout, signal: writer.signal, onStall, elsewhere: () => tracker.progress.stored_bytes }))
    parts.push(part)
    tracker.finishedPart()
    return part
  }
  if (plan.backupType !== 'database_only') await store('globals', reading.globals())
  const database = await store('database', reading.database())
  const contents: Contents = await reading.contents(run.backupId, plan.backupType === 'configuration' ? null : database.key)
  await store('index', once(contentsText(contents)))
  return parts
}

const describe = (run: BackupRun, reading: SourceReading, parts: Part[], auditHead: AuditHead | undefined): Manifest => ({
  format_version: FORMAT_VERSION,
  backup_id: run.backupId,
  tool_version: version,
  schedule: run.plan.scheduleName,
  source: run.plan.sourceName,
  database: run.plan.connection.database,
  server_version: reading.serverVersion,
  pg_dump_version: reading.dumpVersion,
  started_at: run.startedAt.toISOString(),
  completed_at: new Date().toISOString(),
  backup_type: run.plan.backupType,
  compression: run.plan.compression,
  compression_level: run.plan.compression === 'none' ? null : (run.plan.compressionLevel ?? codecs[run.plan.compression].levels.default),
  recipients: [...run.plan.recipients],
  parts,
  ...(auditHead === undefined ? {} : { audit_head: auditHead }),
})

/** Writes the manifest: from here on the folder is a backup. The lease is asked for right before, because a frozen worker must not commit what was given up. */
const commit = async (run: BackupRun, manifest: Manifest): Promise<string> => {
  run.tracker.enter('manifest')
  const text = manifestText(manifest)
  await run.lease.confirm()
  const { size } = await run.storage.write(manifestKey(run.backupId), once(text), { signal: run.lease.signal })
  if (size !== Buffer.byteLength(text)) throw new BackupdError('storage.size', 'the manifest was not stored whole', { retryable: true })
  return text
}

/** What the catalog keeps of a backup whose manifest is stored as `text`. */
export const storedBackup = (manifest: Manifest, text: string): StoredBackup => {
  const sum = (of: (part: Part) => number): number => manifest.parts.reduce((total, part) => total + of(part), 0)
  return {
    manifest, text,
    checksum: manifestChecksum(text),
    keyHash: manifest.recipients.length > 0 ? keyHash(manifest.recipients) : null,
    plainSize: sum((part) => part.plain_size),
    storedSize: sum((part) => part.stored_size),
  }
}

/** Opens the source. A lock that somebody holds on a table makes this wait, before there are bytes to watch. */
const readInTime = async ({ plan, tracker, stallTimeout }: BackupRun, signal: AbortSignal, onStall: (error: BackupdError) => void): Promise<SourceReading> => {
  const timer = setTimeout(() => onStall(new BackupdError('pipeline.stalled', `the source was not ready to be read within ${stallTimeout / 1000} seconds`, {
    retryable: true,
    hint: 'Look for locks on its tables (pg_stat_activity, pg_locks); BACKUPD_STALL_TIMEOUT sets how long to wait.',
  })), stallTimeout)
  try {
    return await readSource(plan, tracker, signal)
  } finally {
    clearTimeout(timer)
  }
}

/** Turns the plan's database into a self-describing set of objects in the storage. The manifest is written last; when this rejects there is none. */
export const backup = async (run: BackupRun): Promise<StoredBackup> => {
  const stalled = new AbortController()
  const signal = AbortSignal.any([run.lease.signal, stalled.signal])
  const reading = await readInTime(run, signal, (error) => stalled.abort(error))
  try {
    const writer = await openWriter(run, signal)
    try {
      const parts = await writeParts(run, reading, writer, (error) => stalled.abort(error))
      const manifest = describe(run, reading, parts, await run.auditHead())
      return storedBackup(manifest, await commit(run, manifest))
    } finally {
      await writer.compressor.close()
    }
  } finally {
    await reading.close()
  }
}
