/**
 * How an execution counts here. `good`: whole, as far as is known. `live`: waiting or running. `verifying`: stored, and being read back.
 * `expiring`: its deletion has begun, so it is no backup any more.
 */
export const backupStates = ['good', 'failed', 'corrupted', 'cancelled', 'live', 'verifying', 'expiring'] as const
export type BackupState = (typeof backupStates)[number]

/** What the choice needs to know of an execution. */
export interface Backup {
  id: number
  /** Null: its schedule was removed, or it never had one. */
  schedule: number | null
  /** Names what belongs together among the backups without a schedule. */
  origin: string
  storage: number
  type: string
  /** A copy of a backup in another storage. */
  copy: boolean
  startedAt: Date
  state: BackupState
  /** It was read back and found whole. */
  verified: boolean
  /** Whether its own settings asked for that; where there is a schedule, the schedule's word counts. */
  verify: boolean
  pinned: boolean
  /** Who reads it now, such as `restore 7`. */
  readers: readonly string[]
  /** Made by another program: nothing is known of its objects, so it is left alone. */
  foreign: boolean
  /** Its storage is switched off. */
  offline: boolean
}

export interface ScheduleRules {
  id: number
  name: string
  timezone: string
  /** Every backup is kept for so many days. */
  days: number
  /** Asks for its backups to be verified. */
  verify: boolean
}

/** An active policy. A slot rule of 0 is off. */
export interface PolicyRules {
  id: number
  name: string
  storage: number
  /** Null: all types. */
  type: string | null
  days: number
  daily: number
  weekly: number
  monthly: number
  yearly: number
  /** Good backups of each group that are kept whatever their age. */
  min: number
}

export const keepRules = [
  'pinned', 'read', 'live', 'newest_good', 'minimum', 'days', 'daily', 'weekly', 'monthly', 'yearly', 'interlock', 'newest_run', 'last_trace', 'future', 'foreign',
  'timezone_invalid', 'rules_invalid', 'storage_disabled',
] as const
export const deleteRules = ['expired', 'no_slot', 'unfinished'] as const

/** One rule that applies to a backup, in words. */
export interface Reason {
  rule: (typeof keepRules)[number] | (typeof deleteRules)[number]
  text: string
}

export interface Decision {
  backup: Backup
  keep: boolean
  /** All rules that keep it, or, where none does, all that would have. */
  reasons: Reason[]
  /** The policy under which its end is recorded: the first that is about it, one for its type before one for all types. Null: none is. */
  policy: number | null
}

/** Newest first; of two of one moment, the later record. */
export const newestFirst = (a: Backup, b: Backup): number => b.startedAt.getTime() - a.startedAt.getTime() || b.id - a.id
