import { executionsOfFolder } from '../catalog/copies.js'
import { executionById, updateExecution, type Execution } from '../catalog/executions.js'
import { jsonObject } from '../catalog/json.js'
import { transition } from '../catalog/queue.js'
import { scheduleById } from '../catalog/schedules.js'
import type { StorageRow } from '../catalog/storages.js'
import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import { createThrottle, type Throttle } from '../pipeline/throttle.js'
import { withWatchdog } from '../pipeline/watchdog.js'
import { manifestKey } from '../repository/keys.js'
import type { Manifest } from '../repository/manifest.js'
import { hasCode } from '../storage/failure.js'
import type { ByteSource, Storage } from '../storage/storage.js'
import { storedBackup } from './backup.js'
import { discardObjects } from './discard.js'
import { failRun, type Running, type Stored } from './ending.js'
import { folderOf } from './folder.js'
import { readManifest, readStored } from './readback.js'
import { openStorageRow, storageRow } from './sources.js'
import { shellWord } from '../shell.js'

interface Ends {
  original: Execution
  /** Of both storages. */
  folder: string
  from: Storage
  to: Storage
  target: StorageRow
  throttle: Throttle | undefined
}

const originalOf = async ({ env, execution }: Running): Promise<Execution> => {
  const original = execution.copy_of === null ? undefined : await executionById(env.catalog.db, execution.copy_of)
  if (original !== undefined) return original
  throw new BackupdError('copy.no_original', 'the backup to be copied was removed meanwhile', { kind: 'notFound', hint: 'Copy a later one.' })
}

/** Opens both storages; on an error none is left open. */
const openEnds = async (running: Running): Promise<Ends> => {
  const { env, execution } = running
  const original = await originalOf(running)
  const target = await storageRow(env, execution.storage_backend_id)
  if (!target.is_active) throw new BackupdError('storage.disabled', `storage "${target.name}" is disabled`, { kind: 'configuration', hint: `Enable it with "backupd storage enable ${shellWord(target.name)}".` })
  const schedule = execution.schedule_id === null ? undefined : await scheduleById(env.catalog.db, execution.schedule_id)
  const limit = schedule?.bandwidth_limit_mbps ?? 0
  const from = await openStorageRow(env, await storageRow(env, original.storage_backend_id))
  try {
    const to = await openStorageRow(env, target, Math.max(1, schedule?.max_parallel_uploads ?? 3))
    return { original, folder: folderOf(original), from, to, target, throttle: limit > 0 ? createThrottle(limit) : undefined }
  } catch (error) {
    await from.close()
    throw error
  }
}

const occupied = (location: string): BackupdError =>
  new BackupdError('copy.exists', `there is a backup at ${location} already`, { hint: 'Two storages may mean the same place; compare their configuration with "backupd storage list".' })

/**
 * Makes sure that nothing good is overwritten: two storages may mean the same place, or another catalog may have put the backup there.
 * A copy that was found damaged makes room, and its record says so.
 */
const makeRoom = async ({ env, execution, lease, tracker }: Running, { folder, from, to, target }: Ends): Promise<void> => {
  const { signal } = lease
  const key = manifestKey(folder)
  if (from.location(key) === to.location(key)) throw occupied(to.location(folder))
  let manifest
  try {
    manifest = await to.stat(key, { signal })
  } catch (error) {
    // A storage that may only be written to is a good place for copies.
    if (!hasCode(error, 'storage.denied')) throw error
    tracker.warn(`whether storage ${target.name} held this backup before could not be looked at: ${messageOf(error)}`)
  }
  if (manifest === undefined) return
  const { db } = env.catalog
  const damaged = await executionsOfFolder(db, target.id, folder, ['corrupted'])
  if (damaged.length === 0) throw occupied(to.location(folder))
  for (const { id } of damaged) await updateExecution(db, id, { status: 'failed', error_message: `this copy was damaged; execution ${execution.id} took its place` })
  const remaining = await discardObjects(to, folder, env.log)
  if (remaining.length > 0) throw new BackupdError('copy.not_replaced', `the damaged copy in storage ${target.name} could not be removed: ${remaining.join(', ')}`)
}

const once = async function* (text: string): ByteSource {
  yield Buffer.from(text)
}

const checkSize = (to: Storage, key: string, size: number, expected: number): void => {
  if (size === expected) return
  throw new BackupdError('storage.size', `${to.location(key)} holds ${size} bytes of ${expected}`, { retryable: true, details: { part: key } })
}

const checkKeys = (manifest: Manifest, folder: string): void => {
  const stray = manifest.parts.find(({ key }) => !key.startsWith(`${folder}/`))
  if (stray !== undefined) throw new BackupdError('integrity.damaged', `the manifest of ${folder} names a part outside of its folder: ${stray.key}`, { kind: 'integrity' })
}

/** The parts as they are, their digests compared on the way, then the manifest: from there on it is a backup. */
const transfer = async ({ env, lease, tracker }: Running, { from, to, folder, throttle }: Ends, manifest: Manifest, text: string): Promise<void> => {
  const stalled = new AbortController()
  const signal = AbortSignal.any([lease.signal, stalled.signal])
  tracker.enter('copy')
  for (const part of manifest.parts) {
    let stream = readStored(from, part, signal, (bytes) => tracker.moved({ plain: bytes }))
    stream = withWatchdog(stream, { timeout: env.config.stallTimeout, signal, onStall: (error) => stalled.abort(error) })
    if (throttle !== undefined) stream = throttle.stage(stream, signal)
    const { size } = await to.write(part.key, stream, { signal })
    checkSize(to, part.key, size, part.stored_size)
    tracker.moved({ stored: size })
    tracker.finishedPart()
  }
  tracker.enter('manifest')
  await lease.confirm()
  const { size } = await to.write(manifestKey(folder), once(text), { signal })
  checkSize(to, manifestKey(folder), size, Buffer.byteLength(text))
}

/**
 * Copies the stored bytes of the execution's original to its storage. When this rejects, the failure is recorded, nothing of the copy is
 * left, and the original is as it was.
 */
export const produceCopy = async (running: Running): Promise<Stored> => {
  const { env, execution, lease, tracker } = running
  const close = (storage: Storage | undefined): Promise<void> | undefined =>
    storage?.close().catch((error: unknown) => env.log.warn({ error: messageOf(error) }, 'closing the storage failed'))
  let ends: Ends | undefined
  let begun: Storage | undefined
  try {
    ends = await openEnds(running)
    const { original, folder, from, to, target } = ends
    const { manifest, text } = await readManifest(from, folder, original.checksum, lease.signal)
    checkKeys(manifest, folder)
    await makeRoom(running, ends)
    throwIfAborted(lease.signal)
    // Before the first byte: who finds this run lost removes only what it may have written.
    const noted = await transition(env.catalog.db, execution.id, { from: 'running', to: 'running', worker: env.workerId, set: { storage_location: to.location(folder) } })
    if (noted === undefined) throw new BackupdError('lease.lost', 'another worker has ended this execution before it began to write')
    begun = to
    env.log.info({ copy_of: original.backup_id, storage: target.name }, 'copy started')
    await transfer(running, ends, manifest, text)
    const verify = jsonObject(execution.backup_config)['verify_integrity'] !== false
    tracker.enter('copy')
    return { storage: to, result: storedBackup(manifest, text), metadata: { stored_as: folder }, verify, level: 'checksum' }
  } catch (error) {
    await failRun(running, begun, error)
    await close(ends?.to)
    throw error
  } finally {
    await close(ends?.from)
  }
}
