import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { machineOn, serverFor, withStorageAndKey } from '../cli/setup.js'

const page = readFileSync(fileURLToPath(new URL('../../docs/audit.md', import.meta.url)), 'utf8')
const server = await serverFor(t)

t.test('the script on the page finds a trail whole, and what was done to one that is not', async (t) => {
  const machine = await machineOn(t, server, { BACKUPD_SOURCE_URL: server.url() })
  const { cli, path, query } = machine
  await withStorageAndKey(machine)
  await cli(['schedule', 'add', 'nächtlich "😀"', '--cron', '@daily', '--storage', 'disk', '--no-verify'])
  await query(`INSERT INTO backup_audit_logs (audit_id, event_type, event_category, action, status) VALUES ('x', 'theirs', 'access', 'view', 'success')`)
  t.match(await cli(['run-now', 'nächtlich "😀"']), { code: 0 })
  const trail = path('trail.jsonl')
  t.match(await cli(['audit', 'export', '--out', trail]), { code: 0 })
  const { head } = (await cli(['audit', 'verify', '--json'])).json<{ head: { seq: number; hash: string } }>()
  const [{ manifest } = { manifest: '' }] = await query(`SELECT execution_metadata ->> 'manifest' AS manifest FROM backup_executions`)
  writeFileSync(path('manifest.json'), String(manifest))
  const anchored = (JSON.parse(String(manifest)) as { audit_head: { seq: number } }).audit_head.seq

  const script = path('check.mjs')
  writeFileSync(script, /```js\n([\s\S]*?)```/.exec(page)?.[1] ?? '')
  const check = (...files: string[]) => new Promise<{ code: number; said: string }>((resolve) =>
    execFile(process.execPath, [script, ...files], (error, stdout, stderr) => resolve({ code: typeof error?.code === 'number' ? error.code : 0, said: stdout + stderr })))
  t.strictSame(await check(trail, path('manifest.json')), { code: 0, said: `${head.seq} entries are whole, the last with hash ${head.hash}\n` })

  const lines = readFileSync(trail, 'utf8').trim().split('\n')
  t.equal(lines.length, head.seq + 1)
  const bad = path('bad.jsonl')
  const tampered = async (changed: string[], expected: RegExp) => {
    writeFileSync(bad, changed.join('\n'))
    t.match(await check(bad, path('manifest.json')), { code: 1, said: expected })
  }
  await tampered(lines.map((line) => line.replace('"is_active":true', '"is_active":false')), /entry \d was changed/)
  await tampered(lines.map((line, at) => (at === 0 ? line.replace(/"username":"[^"]*"/, '"username":"eve"') : line)), /entry 1 was changed/)
  await tampered(lines.filter((_, at) => at !== 1), /entry 2 is missing/)
  await tampered(lines.filter((line) => ((JSON.parse(line) as { chain_seq: number | null }).chain_seq ?? 0) < anchored), new RegExp(`entry ${anchored} is not the one that backup`))
})
