import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { tempDir } from '../support/temp.js'
import { createWorld, type ShownExecution } from './world.js'

const world = await createWorld(t, { encrypt: false })
const dir = tempDir(t, 'hooks')
// The programs run as whoever backs up.
const file = (name: string): string => join(dir, name)
const said = (name: string): string => (existsSync(file(name)) ? readFileSync(file(name), 'utf8') : '')
const secrets = { BACKUPD_SECRET_KEY: 'a-secret-key-of-the-daemon', AWS_SECRET_ACCESS_KEY: 'leaky-leaky-leaky' }

let serial = 0
const schedule = async (...options: string[]): Promise<string> => {
  const name = `hooked-${(serial += 1)}`
  await world.ok(['schedule', 'add', name, '--cron', '@daily', '--storage', 'disk', '--no-encrypt', '--no-verify', '--type', 'database_only', ...options])
  return name
}
const shown = async (name: string): Promise<ShownExecution> => JSON.parse((await world.ok(['show', `latest:${name}`, '--json'])).stdout) as ShownExecution
const latest = async (name: string): Promise<ShownExecution> => {
  const [row] = (await world.sql('catalog', `SELECT e.* FROM backup_executions e JOIN backup_schedules s ON s.id = e.schedule_id WHERE s.name = '${name}' ORDER BY e.id DESC LIMIT 1`))
  return row as unknown as ShownExecution
}

t.test('hooks around a good backup: told what they need, and nothing secret', async (t) => {
  const name = await schedule('--hook-shell', '--pre-hook', `env > ${file('pre')}`, '--post-hook', `env > ${file('post')}`)
  await world.ok(['run-now', name], { env: secrets })
  const row = await shown(name)
  t.equal(row.status, 'completed')
  t.match(said('pre'), new RegExp(`BACKUPD_SCHEDULE=${name}\n`))
  t.match(said('pre'), /BACKUPD_STATUS=running\n/)
  t.match(said('post'), /BACKUPD_STATUS=completed\n/)
  t.match(said('post'), new RegExp(`BACKUPD_BACKUP_ID=${row.backup_id}\n`))
  t.match(said('post'), new RegExp(`BACKUPD_EXECUTION_ID=${row.id}\n`))
  t.notMatch(said('pre') + said('post'), /DATABASE_URL|SOURCE_URL|SECRET|leaky/)
})

t.test('a failing pre-hook: no backup, and the post-hook is told', async (t) => {
  const before = world.objects().length
  const name = await schedule('--hook-shell', '--pre-hook', 'echo cannot freeze >&2; exit 3', '--post-hook', `echo "$BACKUPD_STATUS $BACKUPD_ERROR_CODE" > ${file('after-failure')}`)
  const { code, stderr } = await world.run(['run-now', name])
  t.equal(code, 1)
  t.match(stderr, /exit code 3[\s\S]*cannot freeze/)
  const row = await latest(name)
  t.match(row, { status: 'failed', error_details: { code: 'hook.pre_failed' } })
  t.equal(world.objects().length, before, 'nothing is stored')
  t.equal(said('after-failure'), 'failed hook.pre_failed\n')
})

t.test('a failing post-hook is a warning', async (t) => {
  const name = await schedule('--post-hook', '["/bin/sh", "-c", "echo no mail; exit 9"]')
  await world.ok(['run-now', name])
  const row = await shown(name)
  t.equal(row.status, 'completed')
  t.match(row.warnings.join(), /post-hook ended with exit code 9\nno mail/)
})

t.test('arguments are arguments: nothing of the shell happens', async (t) => {
  const name = await schedule('--pre-hook', JSON.stringify(['/usr/bin/touch', file('a b; touch c $(touch d)')]))
  await world.ok(['run-now', name])
  t.ok(existsSync(file('a b; touch c $(touch d)')))
  t.notOk(existsSync(file('c')))
})

t.test('a hook that takes too long is ended with all it started', async (t) => {
  const name = await schedule('--hook-timeout', '1', '--pre-hook', JSON.stringify(['/bin/sh', '-c', `sleep 300 & echo $! > ${file('child')}; trap '' TERM; wait; wait`]))
  const { code, stderr } = await world.run(['run-now', name])
  t.equal(code, 1)
  t.match(stderr, /more than 1 seconds/)
  t.throws(() => process.kill(Number(said('child')), 0), { code: 'ESRCH' })
})

t.test('what cannot be run, or is no hook', async (t) => {
  const name = await schedule()
  await world.ok(['schedule', 'hooks', name, '--pre-hook', '["/nonexistent/program"]'])
  const missing = await world.run(['run-now', name])
  t.equal(missing.code, 1)
  t.match(missing.stderr, /cannot be started: .*ENOENT/)
  await world.ok(['schedule', 'hooks', name, '--no-pre-hook'])
  await world.ok(['run-now', name])
  for (const bad of ['rm -rf /', '{}', '[]', '[""]', '["a", 1]']) {
    const { code } = await world.run(['schedule', 'hooks', name, '--pre-hook', bad])
    t.equal(code, 2, bad)
  }
  await world.sql('catalog', `UPDATE backup_schedules SET hooks = '{"before": ["x"]}' WHERE name = '${name}'`)
  const wrong = await world.run(['run-now', name])
  t.equal(wrong.code, 4)
  t.match(wrong.stderr, /hooks of the schedule are not valid/)
  t.match(await latest(name), { error_details: { code: 'schedule.hooks' } })
})

t.test('what a hook prints is bounded, and cleaned of secrets', async (t) => {
  const name = await schedule('--hook-shell', '--post-hook', 'i=0; while [ $i -lt 3000 ]; do echo "line $i of very many words"; i=$((i+1)); done; echo "key a-secret-key-of-the-daemon"; exit 1')
  await world.ok(['run-now', name], { env: secrets })
  const text = (await shown(name)).warnings.join()
  t.ok(text.length < 2100, String(text.length))
  t.match(text, /line 2999[\s\S]*\[secret\]/)
  t.notMatch(text, /a-secret-key/)
})
