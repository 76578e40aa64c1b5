import t from 'tap'
import { createWorld, type ShownExecution, type World } from './world.js'

interface Plan {
  evaluated: number
  delete: number
  keep: number
  space_freed_bytes: number
  backups: { id: number; decision: string; schedule: string | null; policy: string | null; reasons: { rule: string; text: string }[] }[]
}
interface Applied {
  cleanups: { storage: string; policy: string | null; status: string; evaluated: number; deleted: string[]; freed: number; remaining: { id: number; reason: string }[] }[]
}

const plan = async (world: World, ...args: string[]): Promise<Plan> => (await world.ok(['retention', 'plan', '--json', ...args])).json<Plan>()
const decisions = ({ backups }: Plan): string => backups.map(({ id, decision }) => `${id} ${decision}`).join(', ')

/** Real backups of schedule `shop`, which keeps them for a day, `days` days old. */
const backups = async (world: World, ages: readonly number[]): Promise<ShownExecution[]> => {
  await world.ok(['schedule', 'add', 'shop', '--cron', '@daily', '--storage', 'disk', '--retention-days', '1', '--no-encrypt'])
  const made: ShownExecution[] = []
  for (const age of ages) {
    const one = (await world.ok(['run-now', 'shop', '--json'])).json<ShownExecution>()
    await world.sql('catalog', `UPDATE backup_executions SET started_at = started_at - interval '${age} days', completed_at = completed_at - interval '${age} days' WHERE id = ${one.id}`)
    made.push(one)
  }
  return made
}

t.test('plan, pin and apply, with real backups', async (t) => {
  const world = await createWorld(t, { encrypt: false })
  const made = await backups(world, [9, 8, 7, 0])
  t.equal(decisions(await plan(world)), '1 delete, 2 keep, 3 keep, 4 keep', 'without a policy: days of the schedule, and 3 at least')
  await world.ok(['policy', 'add', 'short', '--storage', 'disk', '--days', '1', '--daily', 'none', '--weekly', 'none', '--monthly', 'none', '--yearly', 'none', '--min', '1'])
  t.match((await world.ok(['pin', '2', '--json'])).json(), { id: 2, pinned: true })
  t.match((await world.ok(['show', '2'])).stdout, /pinned +yes/)
  const before = world.objects()
  const found = await plan(world, '--policy', 'short')
  t.equal(decisions(found), '1 delete, 2 keep, 3 delete, 4 keep')
  const size = (id: number): number => made.find((one) => one.id === id)?.compressed_size_bytes ?? NaN
  t.match(found, { evaluated: 4, delete: 2, keep: 2, space_freed_bytes: size(1) + size(3) })
  t.match(found.backups[1]?.reasons, [{ rule: 'pinned' }])
  t.match(found.backups[3]?.reasons.map(({ rule }) => rule), ['newest_good', 'minimum', 'days', 'days'])
  t.match((await world.ok(['retention', 'plan', '--storage', 'disk'])).stdout, /1 +\S+ +shop +disk +full +completed +\S+ +\S+ KiB +DELETE +9 days old, more than 1 \(schedule shop\); 9 days old, more than 1 \(policy short\); in no slot of policy short\n[\s\S]*\n2 of 4 would be deleted, which frees/)
  t.same(world.objects(), before, 'a plan removes nothing')

  // What refers to the first one: a restore that has ended, and a copy elsewhere.
  await world.sql('catalog', `INSERT INTO recovery_executions (recovery_id, backup_execution_id, source_backup_id, recovery_type, restore_target, target_system, status, triggered_by, started_at, restore_components)
    SELECT 'r', id, backup_id, 'full_restore', 'x', 'x', 'completed', 'manual', now(), '[]' FROM backup_executions WHERE id = 1`)
  const applied = (await world.ok(['retention', 'apply', '--json'])).json<Applied>()
  t.match(applied.cleanups, [{ storage: 'disk', policy: 'short', status: 'completed', evaluated: 4, deleted: [made[0]?.backup_id, made[2]?.backup_id], remaining: [] }])
  t.same(world.objects(), before.filter((key) => [made[1], made[3]].some((one) => key.startsWith(one?.backup_id ?? '?'))))
  t.same(await world.sql('catalog', 'SELECT id FROM backup_executions ORDER BY id'), [{ id: 2 }, { id: 4 }])
  t.match(await world.sql('catalog', 'SELECT backup_execution_id, source_backup_id FROM recovery_executions'), [{ backup_execution_id: null, source_backup_id: made[0]?.backup_id }], 'the history of restores stays')
  const freed = applied.cleanups[0]?.freed
  t.ok((freed ?? 0) > found.space_freed_bytes, 'the manifests count too')
  t.match(await world.sql('catalog', 'SELECT * FROM backup_cleanup_history'), [{
    retention_policy_id: 1, storage_backend_id: 1, triggered_by: 'manual', backups_evaluated: 4, backups_deleted: 2, backups_kept: 2, space_freed_bytes: String(freed),
    deleted_backup_ids: applied.cleanups[0]?.deleted, status: 'completed', error_message: null, warnings: null,
  }])
  t.match(await world.sql('catalog', 'SELECT total_cleanups, total_backups_deleted, total_space_freed_bytes AS bytes, last_cleanup_at IS NOT NULL AS cleaned FROM backup_retention_policies'), [{ total_cleanups: 1, total_backups_deleted: 2, bytes: String(freed), cleaned: true }])
  t.match(await world.sql('catalog', 'SELECT total_backups, total_size_bytes AS bytes FROM storage_backend_configs'), [{ total_backups: 2, bytes: String(size(2) + size(4)) }])
  t.match(await world.sql('catalog', "SELECT resource_id, action, status FROM backup_audit_logs WHERE event_type = 'backup.expired' ORDER BY id"), ['1', '3'].map((resource_id) => ({ resource_id, action: 'delete', status: 'success' })))
  t.match((await world.ok(['audit', 'verify'])).stdout, /whole/)

  t.match((await world.ok(['retention', 'apply', '--json'])).json<Applied>().cleanups, [{ evaluated: 2, deleted: [] }], 'a second run deletes nothing')
  t.match((await world.ok(['unpin', String(made[1]?.backup_id)])).stdout, /is unpinned/)
  t.match((await world.ok(['retention', 'apply'])).stdout, new RegExp(`^disk, policy short: 1 of 2 deleted, .* freed\n  deleted ${made[1]?.backup_id}`))
  await world.ok(['verify', 'latest:shop', '--level', 'archive'])
  for (const args of [['retention', 'plan', '--policy', 'x'], ['pin', '77']]) t.equal((await world.run(args)).code, 3)
  t.equal((await world.run(['retention'])).code, 2)
})
