import type { AuditAction, AuditCategory, AuditStatus, RiskLevel } from '../catalog/statuses.js'

/** What happened, for the audit trail. */
export interface AuditEvent {
  /** Such as `schedule.created`. */
  event_type: string
  event_category: AuditCategory
  action: AuditAction
  /** Default `success`. */
  status?: AuditStatus
  /** Who did it: a user of the operating system at a host, or the daemon. */
  actor: { username: string; host?: string; ip?: string; user_agent?: string }
  resource?: { type: string; id?: string | number; name?: string }
  before?: unknown
  after?: unknown
  event_data?: Record<string, unknown>
  /** Default `low`. */
  risk_level?: RiskLevel
  /** What ties entries together, such as a backup_id. */
  correlation_id?: string
}
