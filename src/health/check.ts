import type { Catalog } from '../catalog/connect.js'
import type { Schedule } from '../catalog/schedules.js'
import type { CheckType } from '../catalog/statuses.js'
import type { StorageRow } from '../catalog/storages.js'
import type { Config } from '../config.js'
import { BackupdError, abortError, messageOf } from '../errors.js'
import type { Log } from '../log.js'
import type { Connection } from '../postgres/connection.js'
import type { Tools } from '../postgres/tools.js'
import type { Secret } from '../secret.js'
import type { Storage } from '../storage/storage.js'

/** From good to bad; the names are those of `backup_health_checks.status`. */
export const levels = ['healthy', 'warning', 'critical'] as const
export type Level = (typeof levels)[number]

/** What a finding is about, as far as it has a row of its own in the catalog. */
export interface Target {
  type: 'storage' | 'schedule' | 'source'
  /** Null for the source of BACKUPD_SOURCE_URL. */
  id: number | null
}

/** One thing that a check looked at. */
export interface Finding {
  /** What it is about: a source's or storage's name, a folder, a program; nothing secret and no name of a table. */
  subject: string
  level: Level
  /** One sentence: what was seen. */
  message: string
  /** What to do, when something is to be done. */
  advice?: string
  target?: Target
  /** Numbers and facts that were measured; nothing secret. */
  metrics?: Readonly<Record<string, number | string | boolean | null>>
}

/** A source as far as a check needs it. */
export interface SourceTarget {
  id: number | null
  name: string
  /** Resolves references and secrets. */
  connection(): Promise<Connection>
}

/** A storage as far as a check needs it. */
export interface StorageTarget {
  row: StorageRow
  open(): Promise<Storage>
}

/** What checks work with. What is expensive is asked for once, however many checks want it. */
export interface HealthContext {
  config: Config
  log: Log
  signal: AbortSignal
  /** Whether somebody waits for every detail; what is looked at every few minutes is looked at less closely. */
  thorough: boolean
  /** Whether probe objects may be written to a storage now, and what was seen when they were last. */
  probing(row: StorageRow): { write: boolean; seen?: Finding['metrics'] }
  /** Rejects when the catalog cannot be had. */
  catalog(): Promise<Catalog>
  tools(): Promise<Tools[]>
  identities(): Promise<Secret[]>
  /** Those of the catalog, and `default` of BACKUPD_SOURCE_URL, which is there without one. */
  sources(): Promise<SourceTarget[]>
  /** Those that are switched on. */
  storages(): Promise<StorageTarget[]>
  /** All schedules, by name. */
  schedules(): Promise<Schedule[]>
  /** When `schedule` is due first after `from`. Rejects a cron expression or time zone that is none. */
  dueAfter(schedule: Schedule, from: Date): Date
}

/** One check. One file each, one line in the registry. */
export interface Check {
  readonly name: string
  /** Under what it stands in `backup_health_checks`. */
  readonly type: CheckType
  /** `machine`: what it sees is true of this machine alone, and costs next to nothing. */
  readonly scope: 'machine' | 'shared'
  /** When true and the catalog is not to be had, the check is not run and says so. */
  readonly needsCatalog: boolean
  /** What is wrong is a finding; what is thrown becomes a critical one. */
  run(context: HealthContext): Promise<Finding[]>
}

/** The finding that an error makes. */
export const findingOf = (subject: string, error: unknown, level: Level = 'critical'): Finding => ({
  subject, level, message: messageOf(error), ...(error instanceof BackupdError && error.hint !== undefined ? { advice: error.hint } : {}),
})

/** Runs `work` for at most `seconds`; then it is aborted and no more waited for, and this fails with `health.timeout`. */
export const within = async <T>({ signal }: Pick<HealthContext, 'signal'>, seconds: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> => {
  const over = new AbortController()
  const limit = over.signal
  // Not AbortSignal.timeout, which lets the process end while it is waited for.
  const timer = setTimeout(() => over.abort(), seconds * 1000)
  const either = AbortSignal.any([signal, limit])
  const stopped = new Promise<never>((_, reject) => {
    either.addEventListener('abort', () => reject(abortError(either)), { once: true })
  })
  try {
    return await Promise.race([work(either), stopped])
  } catch (error) {
    if (signal.aborted) throw abortError(signal)
    if (!limit.aborted) throw error
    throw new BackupdError('health.timeout', `no answer within ${seconds} s`, { retryable: true, cause: error, hint: 'Check the network and the load of the server.' })
  } finally {
    clearTimeout(timer)
  }
}

/** The worst of the levels. */
export const worst = (found: readonly Level[]): Level => levels[Math.max(0, ...found.map((level) => levels.indexOf(level)))] ?? 'healthy'
