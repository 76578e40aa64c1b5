import { newestStoredSizes } from '../catalog/observations.js'
import { messageOf, throwIfAborted } from '../errors.js'
import type { ProbeStep, Storage } from '../storage/storage.js'
import { findingOf, within, type Check, type Finding, type HealthContext, type StorageTarget } from './check.js'
import { MiB, sizeText } from './size-text.js'

const patience = 60
/** A storage that needs longer for one small object makes backups slow. Milliseconds. */
const slow = 20_000
/** Less room than this is none, whatever backups take. Bytes. */
const tooLittle = 100 * MiB

type Seen = Pick<Finding, 'level' | 'message' | 'metrics' | 'advice'>

const outcomes = (steps: readonly ProbeStep[]): Record<string, string> => Object.fromEntries(steps.map(({ name, outcome }) => [name, outcome]))

// A lack of rights to read, list or remove is what some set-ups want; backups still get there.
const isWish = ({ name, outcome }: ProbeStep): boolean => outcome === 'denied' && name !== 'connect' && name !== 'write'

const probeWhole = async (storage: Storage, thorough: boolean, signal: AbortSignal): Promise<Seen[]> => {
  const place = storage.location('')
  const began = performance.now()
  const steps = await storage.probe({ signal })
  const latency = Math.round(performance.now() - began)
  const metrics = { latency_ms: latency, probed_at: new Date().toISOString(), ...outcomes(steps) }
  const wishes = steps.filter(isWish)
  const bad = steps.filter((step) => (step.outcome === 'failed' || step.outcome === 'denied') && !isWish(step))
  const told = thorough ? [...bad, ...wishes] : bad
  if (told.length > 0) {
    return told.map((step) => ({ level: isWish(step) ? 'warning' : 'critical', message: `${place}: ${step.name} ${step.outcome}: ${step.message}`, metrics }))
  }
  if (latency > slow) return [{ level: 'warning', message: `${place}: needed ${Math.round(latency / 1000)} s for one small object`, metrics, advice: 'Look at the network and the load of the storage.' }]
  if (wishes.length > 0) return [{ level: 'healthy', message: `${place}: wrote an object; ${wishes.map(({ name }) => name).join(', ')} not allowed`, metrics }]
  return [{ level: 'healthy', message: `${place}: wrote, read, listed and removed an object`, metrics }]
}

const probe = async (storage: Storage, { thorough }: HealthContext, { write, seen }: ReturnType<HealthContext['probing']>, signal: AbortSignal): Promise<Seen[]> => {
  const concerns = (storage.concerns ?? []).map((message): Seen => ({ level: 'warning', message }))
  if (write) return [...(await probeWhole(storage, thorough, signal)), ...concerns]
  const began = performance.now()
  await storage.stat('.backupd-health', { signal })
  return [{ level: 'healthy', message: `${storage.location('')} answers`, metrics: { ...seen, latency_ms: Math.round(performance.now() - began) } }, ...concerns]
}

/** Free space against the newest backup there: what the next one will take, about. */
const judgeSpace = async (storage: Storage, need: number, signal: AbortSignal): Promise<Seen[]> => {
  const free = await storage.freeSpace?.({ signal })
  if (free === undefined) return []
  const level = free < Math.max(need, tooLittle) ? 'critical' : free < 3 * need ? 'warning' : 'healthy'
  const last = need === 0 ? '' : `; the newest backup took ${sizeText(need)}`
  const metrics = { free_bytes: free, newest_backup_bytes: need }
  return [{ level, message: `${sizeText(free)} free${last}`, metrics, ...(level === 'healthy' ? {} : { advice: 'Free some space, or keep fewer backups.' }) }]
}

const look = async (context: HealthContext, { row, open }: StorageTarget, need: number): Promise<Finding[]> => {
  const target = { type: 'storage', id: row.id } as const
  const about = (subject: string, seen: Seen[]): Finding[] => seen.map((one) => ({ subject, target, ...one }))
  const attempt = async (subject: string, work: (signal: AbortSignal) => Promise<Seen[]>, level: Finding['level']): Promise<Finding[]> => {
    try {
      return about(subject, await within(context, patience, work))
    } catch (error) {
      throwIfAborted(context.signal)
      return [{ ...findingOf(subject, error, level), target }]
    }
  }
  const subject = `storage ${row.name}`
  let storage: Storage
  try {
    storage = await within(context, patience, open)
  } catch (error) {
    throwIfAborted(context.signal)
    return [{ ...findingOf(subject, error), target }]
  }
  try {
    const reached = await attempt(subject, (signal) => probe(storage, context, context.probing(row), signal), 'critical')
    // What cannot be reached has no space to ask for.
    if (!reached.some(({ level }) => level !== 'critical')) {
      const free = row.backend_type === 'local' ? await attempt(`disk of ${subject}`, (signal) => judgeSpace(storage, need, signal), 'warning') : []
      return [...reached, ...free.filter(({ level }) => level === 'critical')]
    }
    return [...reached, ...(await attempt(`disk of ${subject}`, (signal) => judgeSpace(storage, need, signal), 'warning'))]
  } finally {
    await within(context, 5, () => storage.close()).catch((error: unknown) => context.log.debug({ storage: row.name, error: messageOf(error) }, 'closing the storage failed'))
  }
}

/** Every storage that is switched on can be reached, and can hold the next backup. */
export const storagesCheck: Check = {
  name: 'storages',
  type: 'storage',
  scope: 'shared',
  needsCatalog: true,
  run: async (context) => {
    const targets = await context.storages()
    if (targets.length === 0) return [{ subject: 'storages', level: 'healthy', message: 'there are none yet' }]
    const needs = await newestStoredSizes((await context.catalog()).db)
    return (await Promise.all(targets.map((target) => look(context, target, needs.get(target.row.id) ?? 0)))).flat()
  },
}
