import type { Command } from 'commander'
import type { Run } from './context.js'

/** A command's own file: gives its arguments, options and action to the `Command` that bears its name. */
export interface CommandModule {
  define(command: Command, run: Run): void
}

export interface CommandEntry {
  name: string
  summary: string
  /** Loaded only when the command is called, so that `--help` starts at once. */
  load(): Promise<CommandModule>
}

/** Every command, in the order in which help lists them. */
export const commands: readonly CommandEntry[] = [
  { name: 'daemon', summary: 'keep the schedules, as a service', load: () => import('./daemon.js') },
  { name: 'migrate', summary: 'bring the catalog to the schema of this version, or back', load: () => import('./migrate.js') },
  { name: 'source', summary: 'databases to back up', load: () => import('./source.js') },
  { name: 'storage', summary: 'places for backups', load: () => import('./storage.js') },
  { name: 'schedule', summary: 'what is backed up when, and where to', load: () => import('./schedule.js') },
  { name: 'key', summary: 'keys that backups are encrypted to', load: () => import('./key.js') },
  { name: 'apply', summary: 'bring the configuration to what a file says', load: () => import('./apply.js') },
  { name: 'export', summary: 'the configuration as a file that apply reads, without secrets', load: () => import('./export.js') },
  { name: 'run-now', summary: 'back up now', load: () => import('./run-now.js') },
  { name: 'cancel', summary: 'end a run that is waiting or running', load: () => import('./cancel.js') },
  { name: 'list', summary: 'executions, newest first', load: () => import('./list.js') },
  { name: 'show', summary: 'everything about one execution', load: () => import('./show.js') },
  { name: 'verify', summary: 'read a backup back and check it', load: () => import('./verify.js') },
  { name: 'copy', summary: 'copy a backup to another storage', load: () => import('./copy.js') },
  { name: 'restore', summary: 'put a backup back into a database', load: () => import('./restore.js') },
  { name: 'policy', summary: 'how long backups are kept', load: () => import('./policy.js') },
  { name: 'retention', summary: 'what is deleted by the policies, and why', load: () => import('./retention.js') },
  { name: 'pin', summary: 'keep a backup whatever its age', load: () => import('./pin.js') },
  { name: 'unpin', summary: 'let retention decide about a backup again', load: () => import('./unpin.js') },
  { name: 'notify', summary: 'who is told when something goes wrong', load: () => import('./notify.js') },
  { name: 'catalog', summary: 'find backups again when the catalog was lost', load: () => import('./catalog.js') },
  { name: 'status', summary: 'daemons, running work, next runs and last results', load: () => import('./status.js') },
  { name: 'health', summary: 'whether backups are taken, kept and whole', load: () => import('./health.js') },
  { name: 'doctor', summary: 'look at everything a backup needs', load: () => import('./doctor.js') },
  { name: 'audit', summary: 'what happened: the audit trail and its check', load: () => import('./audit.js') },
]
