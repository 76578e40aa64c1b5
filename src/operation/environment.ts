import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import type { Catalog, Db } from '../catalog/connect.js'
import type { Execution } from '../catalog/executions.js'
import type { Config } from '../config.js'
import type { Log } from '../log.js'

/** Who asked for an operation, for the audit trail. */
export interface Actor {
  username: string
  host: string
}

/** What every operation works with. */
export interface Environment {
  config: Config
  catalog: Catalog
  log: Log
  actor: Actor
  /** Names this process in leases. */
  workerId: string
  /** Asks the operation to end cleanly. */
  signal: AbortSignal
  /** Called in the transaction that ends an execution, to queue the next attempt; tells whether there will be one. */
  ended?: (tx: Db, execution: Execution) => Promise<boolean>
}

/** A worker's name, unique for ever: host, process and chance, because hosts and process numbers come again. */
export const newWorkerId = (): string => `${hostname()}:${process.pid}:${randomBytes(6).toString('hex')}`
