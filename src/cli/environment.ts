import { newWorkerId, type Environment } from '../operation/environment.js'
import { actor, type Context } from './context.js'

/** What operations need, from a command's context; opens the catalog. */
export const environmentOf = async (context: Context): Promise<Environment> => ({
  config: context.config,
  catalog: await context.catalog(),
  log: context.log,
  actor: actor(),
  workerId: newWorkerId(),
  signal: context.signal,
})
