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
]
