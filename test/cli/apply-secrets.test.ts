import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { generateIdentity } from '../../src/encryption/keys.js'
import { programPath } from '../support/cli.js'
import { machineOn, serverFor, withStorageAndKey, type Machine } from './setup.js'

interface Answer { changes: { action: string; type: string; name: string }[]; warnings: string[] }
interface Failed { error: { code: string; message: string; details?: { problems?: { line: number; column: number; message: string }[] } } }

const server = await serverFor(t)
const secrets = { SOURCE_SHOP_PASSWORD: 'password-of-the-shop', STORAGE_OFF_SITE_SECRET_ACCESS_KEY: 'key-of-the-bucket', NOTIFIER_OPS_URL: 'https://hooks.example.org/T/very-secret-path' }
const { recipient } = await generateIdentity()

const put = (machine: Machine, name: string, text: string): string => {
  writeFileSync(machine.path(name), text)
  return machine.path(name)
}

// Everything that commands can say of it, so that what they make and what a file makes are the same.
const byCommands = async ({ cli, path }: Machine): Promise<void> => {
  for (const args of [
    ['key', 'add', recipient, '--name', 'ops'],
    ['source', 'add', 'shop', '--url', `postgres://backup:${secrets.SOURCE_SHOP_PASSWORD}@db.example.org:6432/shop?sslmode=require`, '--description', 'a: "b" #c'],
    ['source', 'add', 'crm', '--url', '{"$env": "CRM_URL"}'],
    ['storage', 'add', 'disk', '--type', 'local', '--set', `base_path=${path('r')}`, '--set', 'require_mount=no'],
    ['storage', 'add', 'off site', '--type', 'aws_s3', '--set', 'bucket_name=b', '--set', 'access_key_id=AKIA', '--set', `secret_access_key=${secrets.STORAGE_OFF_SITE_SECRET_ACCESS_KEY}`, '--set', 'object_lock_days=3'],
    ['policy', 'add', 'long', '--storage', 'off site', '--days', '7', '--daily', '60', '--yearly', 'none'],
    ['schedule', 'add', 'nightly', '--cron', '0 2 * * mon-fri', '--timezone', 'Europe/Berlin', '--storage', 'disk', '--source', 'shop', '--copy-to', 'off site', '--exclude', '"Odd.Name"', '--compression', 'gzip', '--level', '9', '--no-verify'],
    ['notify', 'add', 'ops', '--type', 'webhook', '--set', `url=${secrets.NOTIFIER_OPS_URL}`, '--schedule', 'nightly', '--min-severity', 'warning'],
  ]) {
    const { code, stderr } = await cli(args)
    if (code !== 0) throw new Error(stderr)
  }
}

t.test('what is exported is what there is, and makes the same elsewhere', async (t) => {
  const [here, there] = [await machineOn(t, server), await machineOn(t, server)]
  await byCommands(here)
  const file = here.path('backupd.yaml')
  const exported = await here.cli(['export', '--out', file, '--json'])
  t.equal(exported.code, 0, exported.stderr)
  t.match(exported.json(), { file, variables: Object.keys(secrets) })
  const text = readFileSync(file, 'utf8')
  t.match(text, /password: \{ \$seal: \{ \$env: SOURCE_SHOP_PASSWORD \} \} # sealed in the catalog/)
  t.match(await here.cli(['export', '--out', file, '--json']), { code: 1, stdout: /export\.file_exists/ })
  for (const env of [{}, secrets]) t.match(await here.cli(['apply', file, '--yes', '--prune'], { env }), { code: 0, stdout: /nothing to do/ })

  const bare = await there.cli(['apply', file, '--yes', '--json'])
  t.equal(bare.code, 4)
  t.strictSame(bare.json<Failed>().error.details?.problems?.map(({ line, column, message }) => [text.split('\n')[line - 1]?.slice(column - 1).split(' #')[0], /variable (\w+)/.exec(message)?.[1]]),
    Object.keys(secrets).map((name) => [`{ $seal: { $env: ${name} } }`, name]), 'each missing secret is named where it is asked for')
  t.equal((await there.cli(['apply', file, '--yes'], { env: secrets })).code, 0)
  t.equal((await there.cli(['export'])).stdout, text, 'the same configuration')
  const json = await there.cli(['export', '--json'])
  t.match(await here.cli(['apply', put(here, 'backupd.json', json.stdout), '--yes', '--prune']), { code: 0, stdout: /nothing to do/ }, 'JSON as well')
  const opened = await there.cli(['source', 'list', '--json'])
  t.match(opened.json(), [{ name: 'crm' }, { name: 'shop', description: 'a: "b" #c' }])
  for (const { transcript } of [here, there]) for (const secret of Object.values(secrets)) t.notMatch(transcript(), secret)
})

t.test('a secret is sealed, replaced by a reference, and mended when its key was lost', async (t) => {
  const machine = await machineOn(t, server)
  const file = (password: string): string => put(machine, 'f.yaml', `sources: [{ name: shop, url: postgres://u@h/d, password: ${password} }]\n`)
  const apply = (password: string, env = {}) => machine.cli(['apply', file(password), '--yes'], { env })
  t.equal((await apply('first-of-them')).code, 0)
  t.match(await apply('first-of-them'), { stdout: /nothing to do/ })
  t.match(await apply('second-of-them'), { stdout: /~ source shop\n {4}password: changed\n/ })
  t.match(await apply('{ $seal: { $env: PW } }', { PW: 'second-of-them' }), { stdout: /nothing to do/ })
  t.match(await apply('{ $seal: { $env: PW } }'), { stdout: /nothing to do/ }, 'what is sealed stays where nothing is given')
  t.match(await apply('{ $env: PW }'), { code: 0, stdout: /warning: .*PW[\s\S]*password: \[secret\] → \{"\$env":"PW"\}/ })
  t.match(await apply('{ $seal: { $env: PW } }'), { code: 4, stderr: /f\.yaml:1:58: sources\[0\]\.password: .*PW/ })
  t.match(await apply('third-of-them'), { stdout: /password: \{"\$env":"PW"\} → \[secret\]/ })
  t.match(await apply('third-of-them', { BACKUPD_SECRET_KEY: 'quite another key' }), { code: 0, stdout: /password: changed/ })
  t.notMatch(machine.transcript(), /(first|second|third)-of-them/)
})

t.test('--prune removes what is not named, and nothing that is needed', async (t) => {
  const machine = await machineOn(t, server, { BACKUPD_SOURCE_URL: server.url() })
  const { cli, query } = machine
  await withStorageAndKey(machine)
  for (const args of [['source', 'add', 'default', '--url', 'postgres://h/d'], ['source', 'add', 'shop', '--url', 'postgres://h/d'],
    ['storage', 'add', 'other', '--type', 'local', '--set', 'base_path=/other'], ['schedule', 'add', 'old', '--cron', '@daily', '--storage', 'other', '--source', 'shop']]) await cli(args)
  await query(`INSERT INTO backup_schedules (name, cron_expression, backup_type, storage_backend_id, managed_by) VALUES ('own', '0 3 * * *', 'full', 1, 'backupd')`)
  const without = put(machine, 'keys.yaml', 'keys: []\n')
  t.match(await cli(['apply', without, '--yes']), { stdout: /nothing to do/ })
  t.match(await cli(['apply', without, '--yes', '--prune']), { code: 1, stderr: /no key would be left.*schedules old, own/ })
  const all = put(machine, 'all.yaml', 'sources: []\nschedules: []\nstorages: []\n')
  await query(`INSERT INTO backup_executions (backup_id, storage_backend_id, backup_type, triggered_by, status, started_at, included_components) VALUES ('b1', 2, 'full', 'manual', 'completed', now(), '[]')`)
  const refused = await cli(['apply', all, '--yes', '--prune', '--json'])
  t.equal(refused.code, 1)
  t.match(refused.json<Failed>().error, { code: 'storage.in_use', message: /storage other is in use: 1 execution/ }, 'a storage whose only user is the catalog’s own schedule may go')
  t.match(await cli(['apply', all, '--dry-run', '--prune']), { code: 1 }, 'a plan says so too')
  t.strictSame((await query('SELECT name FROM backup_schedules ORDER BY 1')).map(({ name }) => name), ['old', 'own'], 'all or nothing')
  t.match((await cli(['audit', 'list', '--json'])).json(), [{ event_type: 'configuration.apply', status: 'failure' }])

  const some = put(machine, 'some.yaml', 'sources: []\nschedules: []\n')
  const done = await cli(['apply', some, '--yes', '--prune', '--json'])
  t.equal(done.code, 0, done.stderr)
  t.strictSame(done.json<Answer>().changes.map(({ action, type, name }) => `${action} ${type} ${name}`), ['remove schedule old', 'remove source shop'])
  t.match(done.json<Answer>().warnings, [/schedule own is not removed: backupd keeps it/, /source default is not removed: BACKUPD_SOURCE_URL/])
  t.match((await cli(['audit', 'list', '--json'])).json(), [{ event_type: 'source.removed', before_state: { name: 'shop' } }, { event_type: 'schedule.removed' }])
  t.match(await cli(['apply', put(machine, 'own.yaml', 'schedules: [{ name: own, cron: "@daily", storage: disk }]')]), { code: 4, stderr: /own\.yaml:1:21: schedules\[0\]\.name: .*kept by backupd itself/ })
})

t.test('several that apply at once end in one of the files, whole', async (t) => {
  const machine = await machineOn(t, server)
  const files = ['a', 'b'].map((name) => put(machine, `${name}.yaml`, `storages:\n${[1, 2, 3].map((n) => `  - { name: s${n}, type: local, config: { base_path: /${name} } }\n`).join('')}`))
  const results = await Promise.all([...files, ...files].map((file) => machine.cli(['apply', file, '--yes'])))
  t.strictSame(results.map(({ code }) => code), [0, 0, 0, 0], results.map(({ stderr }) => stderr).join())
  t.equal((await machine.query('SELECT DISTINCT config_data::text FROM storage_backend_configs')).length, 1)
  t.equal((await machine.query('SELECT 1 FROM storage_backend_configs')).length, 3)
  t.equal((await machine.cli(['audit', 'verify'])).code, 0)
})

t.test('what is no configuration is said where it is, without quoting it', async (t) => {
  const machine = await machineOn(t, server)
  const cases: [string, RegExp][] = [
    ['sources:\n  - name: x\n    url: "open-secret\n', /:4:1: something is missing here/],
    ['sources:\n\t- name: x\n', /:2:1: lines are indented with spaces/],
    ['a: &a [*a, *b]\n', /:1:1: an alias/],
    ['{"sources": [{"name": "x", "url": "postgres://h/d", "name": "y"}]}', /:1:53: the field "name" stands here twice/],
    ['- 1\n', /:1:1: expected an object/],
    ['', /:1:1: expected an object/],
    ['sources: { shop: 1 }\n', /:1:10: sources: expected a list, found an object/],
    [`${'['.repeat(20_000)}`, /:1:\d+: /],
  ]
  for (const [text, expected] of cases) {
    const result = await machine.cli(['apply', put(machine, 'x.yaml', text), '--yes'])
    t.equal(result.code, 4, text.slice(0, 40))
    t.match(result.stderr, expected)
  }
  t.equal((await machine.cli(['apply', machine.path('nowhere.yaml')])).code, 3)
  t.match(await machine.cli(['apply', '-', '--yes'], { stdin: 'sources: [5]' }), { code: 4, stderr: /<stdin>:1:11: sources\[0\]: expected/ })
  writeFileSync(machine.path('latin.yaml'), Buffer.from([0x61, 0xe4]))
  t.match(await machine.cli(['apply', machine.path('latin.yaml')]), { code: 4, stderr: /not UTF-8/ })
  t.notMatch(machine.transcript(), 'open-secret')
})

t.test('at a terminal it asks first', async (t) => {
  const machine = await machineOn(t, server)
  const file = put(machine, 'f.yaml', 'sources: [{ name: shop, url: "postgres://u@h/d" }]\n')
  // script(1) of util-linux gives it a terminal.
  const ask = (answer: string) => new Promise<{ code: number | null; text: string }>((resolve) => {
    const child = spawn('script', ['-qec', `'${process.execPath}' '${programPath()}' apply '${file}'`, '/dev/null'], {
      env: { PATH: process.env['PATH'] ?? '', BACKUPD_STATE_DIR: machine.stateDir, BACKUPD_DATABASE_URL: machine.catalogUrl }, stdio: ['pipe', 'pipe', 'inherit'],
    })
    let text = ''
    child.stdout.on('data', (block: Buffer) => {
      text += block.toString('utf8')
      if (text.includes('[y/N]') && child.stdin.writable) child.stdin.end(`${answer}\n`)
    })
    child.on('close', (code) => resolve({ code, text }))
  })
  t.match(await ask('n'), { code: 1, text: /\+ source shop[\s\S]*nothing was changed/ })
  t.strictSame(await machine.query('SELECT 1 FROM backup_sources'), [])
  t.match(await ask('y'), { code: 0, text: /done/ })
  t.equal((await machine.query('SELECT 1 FROM backup_sources')).length, 1)
})
