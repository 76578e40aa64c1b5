import { listCandidates, runningRecoveries, type Candidate } from '../catalog/expiry.js'
import type { Db } from '../catalog/connect.js'
import { jsonObject } from '../catalog/json.js'
import { listPolicies } from '../catalog/policies.js'
import { listSchedules } from '../catalog/schedules.js'
import { goodExecutionStatuses, liveExecutionStatuses } from '../catalog/statuses.js'
import { listStorages, type StorageRow } from '../catalog/storages.js'
import type { Backup, BackupState, Decision } from '../retention/backup.js'
import { choose } from '../retention/choose.js'
import { catalogTime } from './settings/configure.js'
import { policyNamed } from './settings/policies.js'
import { needStorage } from './settings/storages.js'

/** A decision with the names that a reader knows things by. */
export interface Planned extends Decision {
  candidate: Candidate
  storage: StorageRow
  schedule: string | null
  policyName: string | null
}

export interface RetentionPlan {
  now: Date
  /** In the order in which the backups were begun. */
  entries: Planned[]
}

export interface RetentionScope {
  /** Only backups whose cleanup is recorded under the policy of this name. */
  policy?: string | undefined
  /** Only those in the storage of this name. */
  storage?: string | undefined
}

const includes = (list: readonly string[], value: string): boolean => list.includes(value)

const stateOf = ({ status, expiring_at }: Candidate): BackupState => {
  if (expiring_at !== null) return 'expiring'
  if (includes(goodExecutionStatuses, status)) return 'good'
  if (status === 'verifying') return 'verifying'
  if (includes(liveExecutionStatuses, status)) return 'live'
  // What this program does not know has not ended, as far as it can tell.
  return status === 'failed' || status === 'corrupted' || status === 'cancelled' ? status : 'live'
}

type Readers = Map<string, string[]>

const readersOf = async (db: Db, candidates: readonly Candidate[]): Promise<Readers> => {
  const readers: Readers = new Map()
  const note = (key: string | number | null, reader: string): void => {
    if (key !== null) readers.set(String(key), [...(readers.get(String(key)) ?? []), reader])
  }
  for (const { id, execution, backup_id, before } of await runningRecoveries(db)) {
    note(execution, `restore ${id}`)
    if (execution === null) note(backup_id, `restore ${id}`)
    note(before, `restore ${id}`)
  }
  for (const { id, copy_of, status, reading } of candidates) {
    if (includes(liveExecutionStatuses, status)) note(copy_of, `copy ${id}`)
    if (reading) note(id, 'a verification')
  }
  return readers
}

const backupOf = (candidate: Candidate, readers: Readers, inactive: ReadonlySet<number>): Backup => {
  const config = jsonObject(candidate.backup_config)
  return {
    id: candidate.id,
    schedule: candidate.schedule_id,
    origin: JSON.stringify([config['schedule'] ?? null, config['source'] ?? null]),
    storage: candidate.storage_backend_id,
    type: candidate.backup_type,
    copy: candidate.copy_of !== null || candidate.stored_as !== null,
    startedAt: candidate.started_at,
    state: stateOf(candidate),
    verified: candidate.status === 'verified' || candidate.verification_status === 'verified',
    verify: config['verify_integrity'] === true,
    pinned: candidate.pinned,
    readers: [...(readers.get(String(candidate.id)) ?? []), ...(readers.get(candidate.backup_id) ?? [])],
    foreign: !candidate.ours,
    offline: inactive.has(candidate.storage_backend_id),
  }
}

/** Says of every execution whether it is kept, by the catalog's clock, and changes nothing. Fails with `policy.not_found` or `storage.unknown`. */
export const planRetention = async (db: Db, scope: RetentionScope = {}): Promise<RetentionPlan> => {
  const policy = scope.policy === undefined ? undefined : (await policyNamed(db, scope.policy)).id
  const storage = scope.storage === undefined ? undefined : (await needStorage(db, scope.storage)).id
  const now = await catalogTime(db)
  const schedules = await listSchedules(db)
  const policies = (await listPolicies(db)).filter(({ is_active }) => is_active)
  const storages = new Map((await listStorages(db)).map((row) => [row.id, row]))
  const candidates = await listCandidates(db)
  const readers = await readersOf(db, candidates)
  const inactive = new Set([...storages.values()].filter(({ is_active }) => !is_active).map(({ id }) => id))
  const decisions = choose({
    backups: candidates.map((candidate) => backupOf(candidate, readers, inactive)),
    schedules: schedules.map(({ id, name, timezone, retention_days, verify_integrity }) => ({ id, name, timezone, days: retention_days, verify: verify_integrity })),
    policies: policies.map((row) => ({
      id: row.id, name: row.name, storage: row.storage_backend_id, type: row.backup_type, days: row.retention_days, daily: row.keep_daily_for_days,
      weekly: row.keep_weekly_for_weeks, monthly: row.keep_monthly_for_months, yearly: row.keep_yearly_for_years, min: row.min_backups_to_keep,
    })),
    now,
    timezone: 'UTC',
  })
  const byId = new Map(candidates.map((candidate) => [candidate.id, candidate]))
  const entries = decisions.flatMap((decision): Planned[] => {
    const candidate = byId.get(decision.backup.id)
    const place = storages.get(decision.backup.storage)
    if (candidate === undefined || place === undefined) return []
    const within = (policy === undefined || decision.policy === policy) && (storage === undefined || place.id === storage)
    const schedule = schedules.find(({ id }) => id === candidate.schedule_id)?.name ?? null
    const policyName = policies.find(({ id }) => id === decision.policy)?.name ?? null
    return within ? [{ ...decision, candidate, storage: place, schedule, policyName }] : []
  })
  return { now, entries }
}
