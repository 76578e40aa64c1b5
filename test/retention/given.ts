import type { Backup, Decision, PolicyRules, ScheduleRules } from '../../src/retention/backup.js'
import { choose } from '../../src/retention/choose.js'
import type { Choice } from '../../src/retention/groups.js'

export const at = (text: string): Date => new Date(text.length === 10 ? `${text}T12:00:00Z` : text)
export const DAY = 86_400_000

/** A backup of schedule 1 in storage 1, good and verified unless told otherwise. */
export const backup = (id: number, startedAt: Date, more: Partial<Backup> = {}): Backup => ({
  id, schedule: 1, origin: '', storage: 1, type: 'full', copy: false, startedAt, state: 'good', verified: true, verify: true, pinned: false, readers: [], foreign: false, offline: false, ...more,
})

export const schedule = (more: Partial<ScheduleRules> = {}): ScheduleRules => ({ id: 1, name: 'nightly', timezone: 'UTC', days: 30, verify: true, ...more })

/** A policy that keeps as little as one can. */
export const policy = (more: Partial<PolicyRules> = {}): PolicyRules =>
  ({ id: 1, name: 'p', storage: 1, type: null, days: 1, daily: 0, weekly: 0, monthly: 0, yearly: 0, min: 1, ...more })

export const given = (backups: readonly Backup[], more: Partial<Choice> = {}): Choice => ({ backups, schedules: [schedule({ days: 1 })], policies: [policy()], now: at('2026-11-24'), timezone: 'UTC', ...more })

export const kept = (choice: Choice): number[] => choose(choice).filter(({ keep }) => keep).map((decision) => decision.backup.id)
export const reasonsOf = (choice: Choice, id: number): Decision['reasons'][number]['rule'][] => choose(choice).find((decision) => decision.backup.id === id)?.reasons.map(({ rule }) => rule) ?? []
