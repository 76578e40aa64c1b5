import t from 'tap'
import { daemonWorld, eventually } from '../daemon/daemons.js'

interface Report { status: string; age_seconds: number; checks: { check: string; type: string; target: { type: string; id: number } | null; status: string; health_score: number; age_seconds: number; findings: { subject: string; message: string }[] }[] }

const world = await daemonWorld(t)

t.test('without a daemon: looks now, records nothing', async (t) => {
  t.match((await world.run(['health', '--last', '--json'])), { code: 3, stdout: /health\.none/ })
  const result = await world.run(['health', '--json'])
  t.equal(result.code, 0, result.stderr)
  const report = result.json<Report>()
  t.match(report, { status: 'warning', age_seconds: 0 })
  t.match(report.checks.find(({ check }) => check === 'storages'), { type: 'storage', target: { type: 'storage' }, status: 'healthy', health_score: 1, findings: [{ subject: 'storage disk', message: /wrote, read, listed and removed/ }, { subject: 'disk of storage disk' }] })
  t.match(report.checks.find(({ check }) => check === 'sources'), { status: 'healthy', findings: [{ subject: 'source default', message: /^PostgreSQL \d+ answers, backed up with pg_dump \d+/ }] })
  t.strictSame(await world.rows('SELECT 1 FROM backup_health_checks'), [])
  t.equal((await world.run(['health', '--strict'])).code, 1, 'a warning: there is no key')
  t.strictSame(world.objects(), [], 'the probe is gone')
})

t.test('two daemons: one round, shown by both', async (t) => {
  const storage = Number((await world.rows(`INSERT INTO storage_backend_configs (name, backend_type, config_data) VALUES ('broken', 'local', '{"base_path": "/proc/version"}') RETURNING id`))[0]?.['id'])
  const daemons = [world.daemon(), world.daemon()]
  for (const daemon of daemons) await daemon.said('ready')
  await eventually('a finished round', async () => (await world.rows(`SELECT 1 FROM backup_health_checks WHERE target_type = 'round' AND check_results ->> 'finished' = 'true'`)).length > 0)
  t.match(await world.rows(`SELECT count(*)::integer AS n FROM backup_health_checks WHERE target_type = 'round'`), [{ n: 1 }])
  t.match(await world.rows(`SELECT status, issues_found FROM backup_health_checks WHERE target_type = 'storage' AND target_id = ${storage}`), [{ status: 'critical', issues_found: [/^storage broken: /] }])
  t.match(await world.rows(`SELECT is_healthy FROM storage_backend_configs ORDER BY id`), [{ is_healthy: true }, { is_healthy: false }])
  const shown = await eventually('503', async () => {
    for (const daemon of daemons) {
      const { status, text } = await daemon.get('/health')
      if (status === 503) return text
    }
    return undefined
  })
  t.match(JSON.parse(shown), { status: 'critical' })
  t.notMatch(shown, /customers|orders|meilisearch_|audit_logs|backup_health_checks/, 'no names of tables')
  const last = await world.run(['health', '--last', '--json'])
  t.equal(last.code, 1)
  t.match(last.json<Report>().checks.find(({ target }) => target?.type === 'storage' && target.id === storage), { status: 'critical', health_score: 0 })
  t.match((await world.run(['health', '--last'])).stdout, /^CRITICAL storage broken: .*\n(.*\n)*CRITICAL in all, \d+ s ago\n$/m)
  for (const daemon of daemons) t.equal(await daemon.end(), 0)
})
