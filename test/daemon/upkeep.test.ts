import t from 'tap'
import { readConfig } from '../../src/config.js'
import { runDaemon } from '../../src/daemon/daemon.js'
import { silentLog } from '../../src/log.js'
import { shelf } from '../operation/retained.js'
import { startPostgres } from '../support/postgres-server.js'
import { tempDir } from '../support/temp.js'
import { eventually } from './daemons.js'

t.test('a daemon applies retention by itself, and a storage that refuses changes nothing about its work', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const world = await shelf(t, server)
  for (const id of [1, 2, 3, 4, 5]) await world.put(id, (id - 1) * 10)
  await world.sql(`INSERT INTO storage_backend_configs (name, backend_type, config_data) VALUES ('broken', 'local', '{"base_path": "relative"}')`)
  await world.put(6, 60, { storage_backend_id: '2', storage_location: 'NULL', expiring_at: 'now()' })
  const [{ name } = { name: '' }] = await world.sql('SELECT current_database() AS name')
  const stop = new AbortController()
  const config = readConfig({ BACKUPD_CATALOG_BACKUP: 'off', BACKUPD_STATE_DIR: tempDir(t, 'daemon'), BACKUPD_DATABASE_URL: server.url(String(name)), BACKUPD_LISTEN: '127.0.0.1:0', BACKUPD_STORAGE_RETRY: '0' })
  const running = runDaemon({ config, log: silentLog(), signal: stop.signal, urgent: stop.signal, options: { tick: 1, upkeep: 1 } })
  await eventually('the run is on record', async () => (await world.sql("SELECT 1 FROM backup_audit_logs WHERE event_type = 'retention.applied'")).length > 0)
  await eventually('the sweep is on record', async () => (await world.sql("SELECT 1 FROM backup_audit_logs WHERE event_type = 'storage.swept'")).length > 0)
  stop.abort(new Error('the test is over'))
  await running
  t.same(await world.ids(), [1, 2, 3, 6])
  t.match(await world.sql('SELECT storage_backend_id AS storage, status, triggered_by FROM backup_cleanup_history ORDER BY 1'), [
    { storage: 1, status: 'completed', triggered_by: 'schedule' }, { storage: 2, status: 'failed', triggered_by: 'schedule' }])
  t.match(await world.sql("SELECT username, status FROM backup_audit_logs WHERE event_type = 'retention.applied'"), [{ username: 'backupd', status: 'warning' }], 'once, although it looks every second')
})
