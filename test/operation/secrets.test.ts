import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { createWorld } from './world.js'

const secrets = {
  source: 'src-Pa55:w/rd %@ü',
  storage: 'sto-Pa55 "quoted" \\ word',
  accessKey: 'wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLE',
  secretKey: 'a-secret-key-of-at-least-16',
  target: 'tgt-Pa55word',
}

// As it stands, in a URL, in JSON.
const forms = (secret: string): string[] => [secret, encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1)]

t.test('no secret is ever printed, kept in clear, or seen in the list of processes', async (t) => {
  const world = await createWorld(t)
  await world.sql('postgres', `CREATE ROLE keeper SUPERUSER LOGIN PASSWORD '${secrets.source}'; CREATE ROLE target SUPERUSER LOGIN PASSWORD '${secrets.target}'`)
  const env = { BACKUPD_SECRET_KEY: secrets.secretKey, BACKUPD_LOG_LEVEL: 'trace' }
  const url = `postgres://keeper:${encodeURIComponent(secrets.source)}@127.0.0.1:${world.server.port}/shop`
  const run = (...args: string[]) => world.run(args, { env })

  let watching = true
  const seen = new Set<string>()
  const watch = (async () => {
    while (watching) {
      for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
        try {
          const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
          if (/pg_dump|pg_restore|psql|stdbuf/.test(line)) seen.add(line)
        } catch {
          // It ended meanwhile.
        }
      }
      await sleep(20)
    }
  })()

  await run('source', 'add', 'shop', '--url', url)
  await run('source', 'add', 'shop', '--url', url)
  await run('source', 'list', '--json')
  await run('source', 'test', 'shop', '--json')
  await run('source', 'add', 'wrong', '--url', url.replace('keeper', 'nobody'))
  await run('source', 'test', 'wrong')
  await run('storage', 'add', 'far', '--type', 'sftp', '--set', 'host=127.0.0.1', '--set', 'port=1', '--set', 'username=u', '--set', `password=${secrets.storage}`, '--set', 'remote_path=/x')
  await run('storage', 'test', 'far', '--json')
  await run('storage', 'add', 'cloud', '--type', 'aws_s3', '--set', 'bucket_name=b', '--set', 'region=eu-central-1', '--set', 'access_key_id=AKIAEXAMPLE', '--set', `secret_access_key=${secrets.accessKey}`, '--set', 'endpoint=http://127.0.0.1:1')
  await run('storage', 'test', 'cloud')
  await run('storage', 'list', '--json')
  await run('schedule', 'add', 'one', '--cron', '@daily', '--source', 'shop', '--storage', 'disk')
  await run('schedule', 'add', 'two', '--cron', '@daily', '--source', 'wrong', '--storage', 'far')
  t.equal((await run('run-now', 'one', '--json')).code, 0)
  t.not((await run('run-now', 'two', '--json')).code, 0)
  await run('show', 'latest:one')
  await run('show', 'latest:two', '--json')
  await run('verify', 'latest:one')
  const target = `postgres://target:${secrets.target}@127.0.0.1:${world.server.port}/copy`
  t.equal((await run('restore', 'latest:one', '--to', target)).code, 0)
  await run('restore', 'latest:one', '--to', target.replace('/copy', '/copy2').replace('target:', 'nobody:'))
  await run('restore', 'latest:one', '--to', target, '--json')
  await run('doctor')
  await run('doctor', '--json')
  await run('key', 'list', '--json')
  await run('list', '--json')
  await run('audit', 'list', '--limit', '500', '--json')
  await run('audit', 'export')
  await run('status', '--json')
  watching = false
  await watch

  t.ok(seen.size > 0, 'the programs were seen at work')
  const identity = /AGE-SECRET-KEY-\S+/.exec(readFileSync(join(world.stateDir, 'identities', 'test.txt'), 'utf8'))?.[0] ?? ''
  t.ok(identity.length > 50)
  const catalog = execFileSync('/usr/lib/postgresql/15/bin/pg_dump', ['--data-only', '--inserts', world.server.url('catalog')], { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
  const stored = readdirSync(world.storageDir, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('manifest.json') && statSync(join(world.storageDir, name)).isFile())
    .map((name) => readFileSync(join(world.storageDir, name), 'utf8')).join('\n')
  for (const [what, secret] of Object.entries({ ...secrets, identity, postgres: world.server.password })) {
    for (const form of forms(secret)) {
      t.notOk(world.printed.join('\n').includes(form), `the ${what} secret is not printed`)
      t.notOk(catalog.includes(form), `the ${what} secret is not in clear in the catalog`)
      t.notOk(stored.includes(form), `the ${what} secret is not in a manifest`)
      t.notOk([...seen].join('\n').includes(form), `the ${what} secret is on no command line`)
    }
  }
})
