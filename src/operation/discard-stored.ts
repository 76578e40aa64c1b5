import { executionsOfFolder } from '../catalog/copies.js'
import type { Execution } from '../catalog/executions.js'
import { goodExecutionStatuses, liveExecutionStatuses } from '../catalog/statuses.js'
import type { Storage } from '../storage/storage.js'
import { discardObjects } from './discard.js'
import type { Environment } from './environment.js'
import { folderOf, isCopy } from './folder.js'
import { persist } from './persist.js'

/**
 * Removes what an execution that failed has stored, and gives the keys that could not be removed. The folder of a copy bears its
 * original's name, so it is left alone when another copy has it by now.
 */
export const discardStored = async (env: Environment, execution: Execution, storage: Storage): Promise<string[]> => {
  const folder = folderOf(execution)
  if (isCopy(execution)) {
    const statuses = [...goodExecutionStatuses, ...liveExecutionStatuses, 'corrupted'] as const
    const owners = await persist(() => executionsOfFolder(env.catalog.db, execution.storage_backend_id, folder, statuses), env.log)
    if (owners.some(({ id }) => id !== execution.id)) return []
  }
  return discardObjects(storage, folder, env.log)
}
