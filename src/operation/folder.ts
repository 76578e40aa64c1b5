import type { Execution } from '../catalog/executions.js'
import { jsonObject } from '../catalog/json.js'

type Row = Pick<Execution, 'backup_id' | 'copy_of' | 'execution_metadata'>

const storedAs = ({ execution_metadata }: Pick<Execution, 'execution_metadata'>): string | undefined => {
  const { stored_as: folder } = jsonObject(execution_metadata)
  return typeof folder === 'string' ? folder : undefined
}

/** The folder of a backup in its storage. A copy lies in one of its original's name, which the manifest and every key in it bear. */
export const folderOf = (execution: Pick<Execution, 'backup_id' | 'execution_metadata'>): string => storedAs(execution) ?? execution.backup_id

/** Whether an execution copies another one, or did; also when that one is gone. */
export const isCopy = (execution: Row): boolean => execution.copy_of !== null || storedAs(execution) !== undefined
