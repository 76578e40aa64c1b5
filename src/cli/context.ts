import { hostname, userInfo } from 'node:os'
import type { Catalog } from '../catalog/connect.js'
import type { Config } from '../config.js'
import type { Log } from '../log.js'
import type { Output } from './output.js'

/** What a command works with. */
export interface Context {
  config: Config
  log: Log
  out: Output
  /** Aborted by the first SIGINT or SIGTERM. */
  signal: AbortSignal
  /** Aborted by the second one: the user does not want to wait. */
  urgent: AbortSignal
  /** The catalog, opened (and migrated) at the first call and closed when the command ends. */
  catalog(): Promise<Catalog>
}

/** Runs a command's action with a context; `main` turns what it throws into an exit code. */
export type Run = (action: (context: Context) => Promise<void>) => Promise<void>

/** Who is at the keyboard, for the audit trail. */
export const actor = (): { username: string; host: string } => {
  let username: string
  try {
    username = userInfo().username
  } catch {
    // A container may run under a user id that has no name.
    username = `uid ${process.getuid?.() ?? 'unknown'}`
  }
  return { username, host: hostname() }
}
