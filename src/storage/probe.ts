import { randomBytes } from 'node:crypto'
import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import { hasCode } from './failure.js'
import type { ProbeStep, StorageAdapter } from './storage.js'

type Step = Omit<ProbeStep, 'name'>

const content = Buffer.from('backupd looks whether it can write here\n')

const why: Record<ProbeStep['name'], string> = {
  connect: '',
  write: 'Backups cannot be stored here.',
  read: 'Backups can be stored, but neither verified nor restored with these credentials.',
  list: 'The catalog cannot be rebuilt and leftovers cannot be found with these credentials.',
  remove: 'Retention cannot remove backups with these credentials; fine where the storage itself expires them or keeps them immutable.',
}

const failedStep = (name: ProbeStep['name'], error: unknown): Step => {
  // A lock is somebody's wish as much as a missing right is.
  const denied = hasCode(error, 'storage.denied', 'storage.locked')
  const hint = denied || !(error instanceof BackupdError) || error.hint === undefined ? why[name] : error.hint
  return {
    outcome: denied ? 'denied' : 'failed',
    message: hint === '' ? messageOf(error) : `${messageOf(error)}. ${hint}`,
    ...(error instanceof BackupdError ? { code: error.code } : {}),
  }
}

/**
 * Writes, reads back, lists and removes a small object, and says of each step what was seen. Write-only and no-delete set-ups come out
 * as `denied` steps. Throws only for an abort. Where removing is denied the object stays, and the step names it.
 */
export const probeStorage = async (storage: StorageAdapter, { signal }: { signal: AbortSignal }): Promise<ProbeStep[]> => {
  const folder = `.backupd-probe-${randomBytes(6).toString('hex')}`
  const key = `${folder}/probe`
  const steps: ProbeStep[] = []
  const skip = (...names: ProbeStep['name'][]): void => {
    for (const name of names) steps.push({ name, outcome: 'skipped', message: 'Not tried, because of the step before.' })
  }
  const step = async (name: ProbeStep['name'], action: () => Promise<Step>): Promise<Step> => {
    throwIfAborted(signal)
    let result: Step
    try {
      result = await action()
    } catch (error) {
      throwIfAborted(signal)
      result = failedStep(name, error)
    }
    steps.push({ name, ...result })
    return result
  }

  const connected = await step('connect', async () => {
    try {
      await storage.stat(key, { signal })
    } catch (error) {
      // Without the right to read or list, this question is denied; that there was an answer is enough here.
      if (!hasCode(error, 'storage.denied')) throw error
    }
    return { outcome: 'ok', message: `Reached ${storage.location('')}.` }
  })
  if (connected.outcome !== 'ok') {
    skip('write', 'read', 'list', 'remove')
    return steps
  }

  const written = await step('write', async () => {
    await storage.write(key, (async function* () { yield content })(), { signal })
    return { outcome: 'ok', message: `Wrote ${content.length} bytes.` }
  })

  if (written.outcome !== 'ok') skip('read')
  else {
    await step('read', async () => {
      const blocks: Uint8Array[] = []
      for await (const block of storage.read(key, { signal })) blocks.push(block)
      return Buffer.concat(blocks).equals(content)
        ? { outcome: 'ok', message: 'Read the same bytes back.' }
        : { outcome: 'failed', message: 'The bytes read back differ from those written. Do not use this storage.', code: 'storage.incomplete' }
    })
  }

  await step('list', async () => {
    const seen: string[] = []
    for await (const object of storage.list(`${folder}/`, { signal })) seen.push(object.key)
    return written.outcome === 'ok' && !seen.includes(key)
      ? { outcome: 'failed', message: 'The object just written is not in the listing.', code: 'storage.incomplete' }
      : { outcome: 'ok', message: 'Listing works.' }
  })

  if (written.outcome !== 'ok') skip('remove')
  else {
    const removed = await step('remove', async () => {
      await storage.remove(key, { signal })
      return { outcome: 'ok', message: 'Removed it again.' }
    })
    const last = steps.at(-1)
    if (removed.outcome !== 'ok' && last !== undefined) last.message += ` ${storage.location(key)} is left.`
  }
  return steps
}
