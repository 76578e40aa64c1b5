import { Option, type Command } from 'commander'
import type { AuditFilter } from '../audit/audit.js'
import { auditCategories, auditStatuses, type AuditCategory, type AuditStatus } from '../catalog/statuses.js'
import { moment } from './arguments.js'

/** The options of `addFilters`, as commander hands them over. */
export interface FilterOptions {
  category?: AuditCategory
  type?: string
  status?: AuditStatus
  user?: string
  resource?: string
  correlation?: string
  since?: Date
  until?: Date
}

/** Gives a command the options that choose entries. */
export const addFilters = (command: Command): Command => command
  .addOption(new Option('--category <name>', 'only entries of this category').choices(auditCategories))
  .option('--type <event>', 'only this event, such as schedule.created; "backup.*" for all that begin so')
  .addOption(new Option('--status <status>', 'only entries with this outcome').choices(auditStatuses))
  .option('--user <name>', 'only what this user did')
  .option('--resource <type[:name]>', 'only what concerns this kind of thing, or this thing by its name or id, such as schedule:nightly')
  .option('--correlation <id>', 'only what belongs together under this id, such as a backup id')
  .option('--since <time>', 'not before this time, or this long ago: 2026-11-24, 2026-11-24T15:00:00Z, 12h, 30d', moment)
  .option('--until <time>', 'before this time', moment)

const resourceOf = (text: string): NonNullable<AuditFilter['resource']> => {
  const at = text.indexOf(':')
  return at < 0 ? { type: text } : { type: text.slice(0, at), subject: text.slice(at + 1) }
}

/** What the options choose. */
export const filterOf = ({ category, type, status, user, resource, correlation, since, until }: FilterOptions): Omit<AuditFilter, 'limit'> => ({
  ...(category === undefined ? {} : { category }),
  ...(type === undefined ? {} : { type }),
  ...(status === undefined ? {} : { status }),
  ...(user === undefined ? {} : { username: user }),
  ...(resource === undefined ? {} : { resource: resourceOf(resource) }),
  ...(correlation === undefined ? {} : { correlation }),
  ...(since === undefined ? {} : { since }),
  ...(until === undefined ? {} : { until }),
})
