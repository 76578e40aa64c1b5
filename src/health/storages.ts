import { throwIfAborted } from '../errors.js'
import type { ProbeStep, Storage } from '../storage/storage.js'
import { findingOf, within, type Check, type Finding, type HealthContext, type StorageTarget } from './check.js'

const patience = 60

const findings = (subject: string, place: string, steps: readonly ProbeStep[]): Finding[] => {
  const bad = steps.filter(({ outcome }) => outcome === 'failed' || outcome === 'denied')
  if (bad.length === 0) return [{ subject, level: 'healthy', message: `${place}: wrote, read, listed and removed an object` }]
  return bad.map(({ name, outcome, message }) => ({
    subject,
    // A lack of rights to read, list or remove is what some set-ups want; backups still get there.
    level: outcome === 'denied' && name !== 'connect' && name !== 'write' ? 'warning' : 'critical',
    message: `${place}: ${name} ${outcome}: ${message}`,
  }))
}

const probe = async (context: HealthContext, subject: string, storage: Storage): Promise<Finding[]> =>
  within(context, patience, async (signal) => {
    const place = storage.location('')
    const concerns = (storage.concerns ?? []).map((message): Finding => ({ subject, level: 'warning', message }))
    if (context.thorough) return [...findings(subject, place, await storage.probe({ signal })), ...concerns]
    await storage.stat('.backupd-health', { signal })
    return [{ subject, level: 'healthy', message: `${place} answers` }, ...concerns]
  })

const look = async (context: HealthContext, { row, open }: StorageTarget): Promise<Finding[]> => {
  const subject = `storage ${row.name}`
  let storage: Storage | undefined
  try {
    storage = await open()
    return await probe(context, subject, storage)
  } catch (error) {
    throwIfAborted(context.signal)
    return [findingOf(subject, error)]
  } finally {
    await storage?.close()
  }
}

/** Every storage that is switched on can be reached; when thorough, also that it can hold backups. */
export const storagesCheck: Check = {
  name: 'storages',
  needsCatalog: true,
  run: async (context) => {
    const targets = await context.storages()
    if (targets.length === 0) return [{ subject: 'storages', level: 'healthy', message: 'there are none yet' }]
    return (await Promise.all(targets.map((target) => look(context, target)))).flat()
  },
}
