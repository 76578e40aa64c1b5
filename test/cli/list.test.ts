import t from 'tap'
import { machineOn, serverFor, withStorageAndKey, type Failure } from './setup.js'

interface Row extends Record<string, unknown> { id: number; backup_id: string; started_at: string }

const server = await serverFor(t)

t.test('executions are listed newest first, by schedule and status', async (t) => {
  const machine = await machineOn(t, server, { BACKUPD_SOURCE_URL: server.url() })
  const { cli } = machine
  await withStorageAndKey(machine)
  t.strictSame((await cli(['list', '--json'])).json(), [])
  t.match((await cli(['list'])).stdout, /no executions/)
  for (const name of ['a', 'b']) await cli(['schedule', 'add', name, '--cron', '@daily', '--storage', 'disk'])
  await machine.query(`INSERT INTO backup_executions (backup_id, schedule_id, storage_backend_id, backup_type, triggered_by, status, started_at, included_components, error_message, attempt)
    VALUES ('b1', 1, 1, 'full', 'manual', 'completed', '2026-01-01', '["database"]', NULL, 1), ('b2', 2, 1, 'full', 'schedule', 'failed', '2026-01-03', '[]', E'no\\nroute', 1),
      ('b3', 1, 1, 'full', 'schedule', 'cancelled', '2026-01-02', '[]', NULL, 1), ('b4', NULL, 1, 'full', 'schedule', 'completed', '2026-01-04', '[]', NULL, NULL)`)
  const ids = async (...args: string[]) => (await cli(['list', '--json', ...args])).json<Row[]>().map(({ backup_id }) => backup_id)
  t.strictSame(await ids(), ['b4', 'b2', 'b3', 'b1'])
  t.strictSame(await ids('--schedule', 'a'), ['b3', 'b1'])
  t.strictSame(await ids('--status', 'failed,cancelled'), ['b2', 'b3'])
  t.strictSame(await ids('--schedule', 'a', '--status', 'completed'), ['b1'])
  t.strictSame(await ids('--limit', '2'), ['b4', 'b2'])
  t.match((await cli(['list', '--json', '--limit', '1'])).json<Row[]>()[0], {
    id: 4, schedule_id: null, storage_backend_id: 1, triggered_by: 'schedule', started_at: '2026-01-04T00:00:00.000Z', size_bytes: 0, included_components: [],
  })
  t.match((await cli(['list'])).stdout, /^ID +BACKUP ID.*\n4 +b4 +- +disk +completed.*\n2 +b2 +b +disk +failed .* no\n3 +b3 +a .*\n1 +b1 +a /)
  t.match((await cli(['list', '--schedule', 'nope', '--json'])).json<Failure>(), { error: { code: 'schedule.not_found' } })
  t.equal((await cli(['list', '--schedule', 'nope'])).code, 3)
  t.match(await cli(['list', '--status', 'done']), { code: 2, stderr: /scheduled, pending, running/ })
  t.match(await cli(['list', '--limit', '0']), { code: 2 })
})
