import { holdExecution } from '../catalog/expiry.js'
import type { Db } from '../catalog/connect.js'
import type { Execution } from '../catalog/executions.js'
import { BackupdError } from '../errors.js'

type Row = Pick<Execution, 'id' | 'backup_id' | 'expiring_at'>

const gone = ({ id, backup_id }: Pick<Row, 'id' | 'backup_id'>): BackupdError =>
  new BackupdError('backup.expiring', `backup ${backup_id} (execution ${id}) is being deleted by retention, and parts of it may be gone`, {
    kind: 'notFound', hint: 'Take another one: see "backupd list".', details: { execution_id: id },
  })

/** Fails with `backup.expiring` (exit code 3) when the deletion of the backup has begun. */
export const refuseExpiring = (row: Row): void => {
  if (row.expiring_at !== null) throw gone(row)
}

/** Keeps the deletion of a backup from beginning before the transaction ends. Fails with `backup.expiring` when it has begun. */
export const holdBackup = async (tx: Db, row: Pick<Row, 'id' | 'backup_id'>): Promise<Execution> => {
  const held = await holdExecution(tx, row.id)
  if (held === undefined) throw gone(row)
  return held
}
