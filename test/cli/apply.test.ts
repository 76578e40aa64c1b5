import { writeFileSync } from 'node:fs'
import t from 'tap'
import { generateIdentity } from '../../src/encryption/keys.js'
import { machineOn, serverFor, type Machine } from './setup.js'

interface Change { action: string; type: string; name: string; fields: { field: string; before?: unknown; after?: unknown }[] }
interface Answer { applied: boolean; dry_run: boolean; changes: Change[]; warnings: string[] }
interface Failed { error: { code: string; message: string; details?: { changes?: Change[]; problems?: { line: number; column: number; code: string; path: string }[] } } }

const server = await serverFor(t)
const { recipient } = await generateIdentity()
const [urlPassword, storageSecret] = ['the-password-of-the-shop', 'the-key-of-the-bucket']

/** Writes a file of the machine and gives its path. */
const fileOn = ({ path }: Machine) => {
  let count = 0
  return (text: string, name = `${(count += 1)}.yaml`): string => {
    writeFileSync(path(name), text)
    return path(name)
  }
}

const whole = (machine: Machine, cron = '0 2 * * *'): string => `
version: 1
keys:
  - { name: ops, recipient: ${recipient} }
sources:
  - name: shop
    url: postgres://backup:${urlPassword}@db.example.org/shop?sslmode=require
  - name: crm
    url: { $env: CRM_URL }
    description: customers
storages:
  - name: disk
    type: local
    config: { base_path: ${machine.path('repository')}, require_mount: "no" }
  - name: offsite
    type: aws_s3
    config:
      bucket_name: b
      region: eu-central-1
      access_key_id: AKIA
      secret_access_key: ${storageSecret}
      object_lock_days: 3
schedules:
  - name: nightly
    cron: ${JSON.stringify(cron)}
    timezone: Europe/Berlin
    source: shop
    storage: disk
    copy_to: offsite
    exclude: [public.cache_*]
`

t.test('a file becomes the configuration, once', async (t) => {
  const machine = await machineOn(t, server)
  const file = fileOn(machine)
  const text = file(whole(machine))
  const plan = await machine.cli(['apply', text, '--dry-run', '--json'])
  t.equal(plan.code, 0, plan.stderr)
  t.match(plan.json<Answer>(), { dry_run: true, applied: false })
  t.strictSame(plan.json<Answer>().changes.map(({ action, type, name }) => `${action} ${type} ${name}`), [
    'add key ops', 'add source shop', 'add source crm', 'add storage disk', 'add storage offsite', 'add schedule nightly',
  ])
  t.strictSame((await machine.cli(['audit', 'list', '--json'])).json(), [], 'a plan leaves no trace')
  t.strictSame(await machine.query('SELECT 1 FROM backup_sources'), [])

  const refused = await machine.cli(['apply', text])
  t.equal(refused.code, 2)
  t.match(refused.stdout, /^\+ storage offsite\n {4}type: aws_s3\n/m)
  t.match(refused.stdout, /6 to add, 0 to change, 0 to remove/)
  t.match(refused.stderr, /no terminal to ask at\n.*--yes/)
  const refusedJson = (await machine.cli(['apply', text, '--json'])).json<Failed>()
  t.equal(refusedJson.error.code, 'apply.unconfirmed')
  t.equal(refusedJson.error.details?.changes?.length, 6)

  const done = await machine.cli(['apply', text, '--yes', '--json'])
  t.equal(done.code, 0, done.stderr)
  t.match(done.json<Answer>(), { applied: true, warnings: [/CRM_URL/] })
  const [sealed] = await machine.query('SELECT connection::text AS c FROM backup_sources WHERE name = \'shop\'')
  t.match(sealed, { c: /"url": ?"postgres:\/\/backup@db\.example\.org:5432\/shop\?sslmode=require".*\$sealed/ })
  const [schedule] = await machine.query('SELECT next_run_at, cron_expression, timezone, exclude_patterns, compression_type FROM backup_schedules')
  t.match(schedule, { cron_expression: '0 2 * * *', timezone: 'Europe/Berlin', exclude_patterns: ['public.cache_*'], compression_type: 'zstd' })
  t.ok((schedule?.['next_run_at'] as Date).getTime() > Date.now())

  const audit = (await machine.cli(['audit', 'list', '--json'])).json<{ event_type: string; correlation_id: string; after_state: unknown }[]>()
  t.strictSame(audit.map(({ event_type }) => event_type).reverse(), ['key.created', 'source.created', 'source.created', 'storage.created', 'storage.created', 'schedule.created'])
  t.equal(new Set(audit.map(({ correlation_id }) => correlation_id)).size, 1, 'tied together')
  t.ok(audit.every(({ after_state }) => after_state !== null))

  for (const options of [['--yes'], [], ['--prune', '--yes']]) {
    const again = await machine.cli(['apply', text, ...options])
    t.match(again, { code: 0, stdout: /^nothing to do/m })
  }
  t.equal((await machine.cli(['audit', 'list', '--json'])).json<unknown[]>().length, audit.length, 'and nothing on record')
  t.notMatch(machine.transcript(), urlPassword)
  t.notMatch(machine.transcript(), storageSecret)
})

t.test('only what differs is changed, each with before and after', async (t) => {
  const machine = await machineOn(t, server)
  const file = fileOn(machine)
  t.equal((await machine.cli(['apply', file(whole(machine)), '--yes'])).code, 0)
  await machine.query('UPDATE backup_schedules SET total_runs = 7')
  const changed = whole(machine, '30 4 * * *').replace(storageSecret, 'another-key-of-it').replace('description: customers', 'description: clients').replace('object_lock_days: 3', 'object_lock_days: "3"')
  const plan = await machine.cli(['apply', file(changed), '--dry-run'])
  t.match(plan.stdout, /~ source crm\n {4}description: customers → clients\n~ storage offsite\n {4}config.secret_access_key: changed\n~ schedule nightly\n {4}cron: 0 2 \* \* \* → 30 4 \* \* \*\n0 to add, 3 to change, 0 to remove/)
  const done = await machine.cli(['apply', file(changed), '--yes'])
  t.match(done, { code: 0, stdout: /done: 0 added, 3 changed, 0 removed/ })
  const [row] = await machine.query('SELECT cron_expression, next_run_at, next_run_for, total_runs FROM backup_schedules')
  t.match(row, { cron_expression: '30 4 * * *', next_run_for: '30 4 * * * Europe/Berlin', total_runs: 7 })
  const clock = new Intl.DateTimeFormat('en-GB', { timeZone: 'Europe/Berlin', hour: '2-digit', minute: '2-digit' }).format(row?.['next_run_at'] as Date)
  t.equal(clock, '04:30')
  const [entry] = (await machine.cli(['audit', 'list', '--json'])).json<{ event_type: string; before_state: unknown; after_state: unknown }[]>()
  t.match(entry, { event_type: 'schedule.changed', before_state: { cron_expression: '0 2 * * *' }, after_state: { cron_expression: '30 4 * * *' } })
  t.match(await machine.cli(['apply', file(changed), '--yes']), { code: 0, stdout: /nothing to do/ })
  t.notMatch(machine.transcript(), 'another-key-of-it')
})

t.test('all that is wrong with a file is said at once, with line and column', async (t) => {
  const machine = await machineOn(t, server)
  const text = `version: 2
sauces: []
sources:
  - name: shop
    url: postgres://h/shop
    color: red
    url: postgres://h/again
  - name: shop
    url: 5
storages:
  - name: disk
    type: local
    config: { base_path: relative, colour: blue }
  - name: tape
    type: tape
  - name: cloud
    type: aws_s3
    config: { bucket_name: b, object_lock_days: many, secret_access_key: 12345678 }
  - type: local
    config: { base_path: /x }
schedules:
  - name: nightly
    cron: 61 * * * *
    timezone: Europe/Atlantis
    storage: nowhere
    copy_to: elsewhere
    source: nothing
    include: [a.b.c]
  - name: weekly
    cron: "@weekly"
    storage: disk
    source: shop
    retention_days: forever
    encrypt: "no"
    level: 99
keys:
  - name: ops
    recipient: AGE-SECRET-KEY-1QQQQQQQQQQ
`
  const name = machine.path('bad.yaml')
  writeFileSync(name, text)
  const result = await machine.cli(['apply', name, '--yes', '--json'])
  t.equal(result.code, 4)
  const { error } = result.json<Failed>()
  t.equal(error.code, 'apply.invalid')
  t.strictSame(error.details?.problems?.map(({ line, column, path, code }) => `${line}:${column} ${path} ${code}`), [
    '1:10 version apply.wrong_value',
    '2:1  apply.unknown_field',
    '6:5 sources[0] apply.unknown_field',
    '7:5  apply.duplicate_field',
    '8:11 sources[1].name apply.duplicate_name',
    '9:10 sources[1].url apply.wrong_type',
    '13:26 storages[0].config.base_path storage.config_invalid',
    '13:36 storages[0].config apply.unknown_field',
    '15:11 storages[1].type apply.wrong_value',
    '18:49 storages[2].config.object_lock_days storage.config_invalid',
    '18:74 storages[2].config.secret_access_key apply.wrong_type',
    '19:5 storages[3] apply.missing_field',
    '23:11 schedules[0].cron schedule.cron_invalid',
    '24:15 schedules[0].timezone schedule.timezone_invalid',
    '25:14 schedules[0].storage storage.unknown',
    '26:14 schedules[0].copy_to storage.unknown',
    '27:13 schedules[0].source source.unknown',
    '28:15 schedules[0].include[0] pattern.invalid',
    '33:21 schedules[1].retention_days apply.wrong_type',
    '34:14 schedules[1].encrypt apply.wrong_type',
    '35:12 schedules[1].level apply.wrong_value',
    '38:16 keys[0].recipient key.recipient_invalid',
  ])
  const shown = await machine.cli(['apply', name])
  t.ok(shown.stderr.includes(`${name}:34:14: schedules[1].encrypt: expected true or false, found text`), shown.stderr)
  t.ok(shown.stderr.includes(`${name}:2:1: unknown field "sauces". The fields here are $schema, version, keys, sources, storages, policies, schedules, notifiers`), shown.stderr)
  t.notMatch(machine.transcript(), /QQQQQQQQ|12345678/)
  t.strictSame(await machine.query('SELECT 1 FROM backup_sources UNION ALL SELECT 1 FROM storage_backend_configs'), [])
})

t.test('hooks are part of a schedule', async (t) => {
  const machine = await machineOn(t, server)
  const file = fileOn(machine)
  const withHooks = (hooks: string): string => `
sources: [{ name: default, url: postgres://h/shop }]
storages:
  - { name: disk, type: local, config: { base_path: ${machine.path('repository')} } }
schedules:
  - name: nightly
    cron: 0 2 * * *
    storage: disk
    encrypt: false
${hooks}`
  const both = `    hooks:
      pre: { argv: [/usr/local/bin/freeze, --quiet], timeout_seconds: 60 }
      post: { argv: ["echo thawed; true"], shell: true }
`
  const hooks = async (): Promise<unknown> => (await machine.query('SELECT hooks FROM backup_schedules'))[0]?.['hooks']
  t.equal((await machine.cli(['apply', file(withHooks(both)), '--yes'])).code, 0)
  const stored = { pre: { argv: ['/usr/local/bin/freeze', '--quiet'], shell: false, timeout_seconds: 60 }, post: { argv: ['echo thawed; true'], shell: true, timeout_seconds: 300 } }
  t.strictSame(await hooks(), stored)

  const exported = (await machine.cli(['export'])).stdout
  t.match(exported, /hooks:\n +pre:\n +argv:\n +- \/usr\/local\/bin\/freeze/)
  t.match(await machine.cli(['apply', file(exported), '--prune', '--yes']), { code: 0, stdout: /^nothing to do/m })
  t.match(await machine.cli(['apply', file(withHooks(both)), '--yes']), { code: 0, stdout: /^nothing to do/m })

  const plan = await machine.cli(['apply', file(withHooks(both.replace('60', '90'))), '--dry-run'])
  t.match(plan.stdout, /~ schedule nightly\n {4}hooks\.pre\.timeout_seconds: 60 → 90\n0 to add, 1 to change/)
  t.strictSame(await hooks(), stored)
  t.equal((await machine.cli(['apply', file(withHooks('')), '--yes'])).code, 0, 'left out is none')
  t.equal(await hooks(), null)

  await machine.query(`UPDATE backup_schedules SET hooks = '{"pre": {}}'`)
  t.match((await machine.cli(['export'])).stderr, /schedule nightly holds what a file cannot say/)
  t.equal((await machine.cli(['apply', file(withHooks('')), '--yes'])).code, 0)
  t.equal(await hooks(), null, 'what made no sense is put right')

  const bad = file(withHooks(`    hooks:
      pre: { argv: [a, b], shell: true }
      post: { argv: [], timeout_seconds: 0, color: red }
      before: { argv: [a] }
`))
  const refused = await machine.cli(['apply', bad, '--yes', '--json'])
  t.equal(refused.code, 4)
  t.strictSame(refused.json<Failed>().error.details?.problems?.map(({ line, column, path, code }) => `${line}:${column} ${path} ${code}`).sort(), [
    '11:20 schedules[0].hooks.pre.argv apply.wrong_value',
    '12:21 schedules[0].hooks.post.argv apply.wrong_value',
    '12:42 schedules[0].hooks.post.timeout_seconds apply.wrong_value',
    '12:45 schedules[0].hooks.post apply.unknown_field',
    '13:7 schedules[0].hooks apply.unknown_field',
  ])
  t.match((await machine.cli(['apply', bad])).stderr, /unknown field "before"\. The fields here are pre, post/)
})
