import type { Command } from 'commander'
import { BackupdError } from '../errors.js'
import { applyRetention, type CleanupReport } from '../operation/expire.js'
import { planRetention, type Planned, type RetentionPlan, type RetentionScope } from '../operation/retention-plan.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'
import { bytes, table, type Row } from './output.js'

const document = ({ candidate, storage, schedule, policyName, keep, reasons }: Planned) => ({
  id: candidate.id, backup_id: candidate.backup_id, schedule, storage: storage.name, backup_type: candidate.backup_type, status: candidate.status,
  verification_status: candidate.verification_status, started_at: candidate.started_at, stored_bytes: candidate.stored, pinned: candidate.pinned,
  decision: keep ? 'keep' : 'delete', policy: policyName, reasons,
})

const sizeOf = (entries: readonly Planned[]): number => entries.reduce((sum, { candidate }) => sum + candidate.stored, 0)

const planDocument = ({ now, entries }: RetentionPlan) => {
  const doomed = entries.filter(({ keep }) => !keep)
  return {
    time: now, evaluated: entries.length, delete: doomed.length, keep: entries.length - doomed.length, space_freed_bytes: sizeOf(doomed), backups: entries.map(document),
  }
}

const line = (entry: Planned): Row => {
  const { schedule, storage, backup_type: type, status, started_at, stored_bytes, backup_id, id } = document(entry)
  return {
    id, backup_id, schedule, storage, type, status, started: started_at, size: stored_bytes === 0 ? null : bytes(stored_bytes), decision: entry.keep ? 'keep' : 'DELETE',
    reasons: entry.reasons.map(({ text }) => text).join('; '),
  }
}

const planText = ({ entries }: RetentionPlan): string => {
  const doomed = entries.filter(({ keep }) => !keep)
  const columns = ['id', 'backup_id', 'schedule', 'storage', 'type', 'status', 'started', 'size', 'decision', 'reasons']
  const summary = doomed.length === 0 ? 'nothing would be deleted' : `${doomed.length} of ${entries.length} would be deleted, which frees ${bytes(sizeOf(doomed))}`
  return entries.length === 0 ? 'There are no executions.' : `${table(columns, entries.map(line), '')}\n\n${summary}`
}

const reportText = ({ storage, policy, evaluated, deleted, freed, remaining, error }: CleanupReport): string => [
  `${storage}, ${policy === null ? 'without a policy' : `policy ${policy}`}: ${deleted.length} of ${evaluated} deleted, ${bytes(freed)} freed`,
  ...deleted.map((backup_id) => `  deleted ${backup_id}`),
  ...remaining.map(({ backup_id, reason }) => `  left ${backup_id}: ${reason}`),
  ...(error !== null && remaining.length === 0 ? [`  ${error}`] : []),
].join('\n')

const defineApply = (command: Command, run: Run): void => {
  command.command('apply').description('delete what no rule keeps, the object before the record').option('--policy <name>', 'only what this policy is about')
    .option('--storage <name>', 'only backups in this storage')
    .action((scope: RetentionScope) =>
      run(async (context) => {
        const cleanups = await applyRetention(await environmentOf(context), scope, 'manual')
        context.out.result({ cleanups }, () => (cleanups.length === 0 ? 'There is nothing to judge.' : cleanups.map(reportText).join('\n')))
        const unfinished = cleanups.filter(({ status }) => status !== 'completed')
        if (unfinished.length > 0) {
          throw new BackupdError('retention.partial', `not everything could be deleted: ${unfinished.map(({ storage, error }) => `${storage}: ${error ?? ''}`).join('; ')}`, {
            retryable: true, hint: 'It is tried again at the next time. Look at the reasons, and at the rights on the storage.',
          })
        }
      }))
}

/** `backupd retention plan | apply`. Exit 1 when something could not be deleted, 3 when there is no such policy or storage. */
export const define = (command: Command, run: Run): void => {
  command.command('plan').description('say of every backup whether it is kept, and why; changes nothing').option('--policy <name>', 'only what this policy is about')
    .option('--storage <name>', 'only backups in this storage')
    .action((scope: RetentionScope) =>
      run(async (context) => {
        const plan = await planRetention((await context.catalog()).db, scope)
        context.out.result(planDocument(plan), () => planText(plan))
      }))
  defineApply(command, run)
}
