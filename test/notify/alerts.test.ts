import { readFileSync } from 'node:fs'
import { SMTPServer } from 'smtp-server'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { daemonWorld, eventually } from '../daemon/daemons.js'
import { makeCertificate } from '../servers/certificate.js'
import { tempDir } from '../support/temp.js'
import { deadPort, startReceiver } from './receiver.js'

const world = await daemonWorld(t)
const receiver = await startReceiver(t)
const statuses = async (): Promise<string[]> => (await world.rows('SELECT f.name, n.event, n.severity, n.status, n.attempts FROM backup_notifications n JOIN backup_notifiers f ON f.id = n.notifier_id ORDER BY n.id'))
  .map(({ name, event, severity, status, attempts }) => `${String(name)} ${String(event)} ${String(severity)} ${String(status)} ${String(attempts)}`)
const bare = ['--cron', '@yearly', '--storage', 'disk', '--no-encrypt', '--no-verify', '--type', 'database_only']

t.test('run-now without a daemon sends what it queued: failure, first success after it, and pings', async (t) => {
  await world.ok(['schedule', 'add', 'nightly', ...bare])
  await world.ok(['notify', 'add', 'hook', '--type', 'webhook', '--set', `url=${receiver.url}/hook?token=url-secret`, '--set', 'secret=signing-secret'])
  await world.ok(['notify', 'add', 'ping', '--type', 'healthchecks', '--set', `url=${receiver.url}/ping`, '--schedule', 'nightly'])
  await world.ok(['notify', 'add', 'other', '--type', 'webhook', '--set', `url=${receiver.url}/other`, '--event', 'overdue'])
  await world.ok(['schedule', 'hooks', 'nightly', '--pre-hook', '["/bin/false"]'])
  t.equal((await world.run(['run-now', 'nightly'])).code, 1)
  t.equal((await world.run(['run-now', 'nightly'])).code, 1)
  await world.ok(['schedule', 'hooks', 'nightly', '--no-pre-hook'])
  await world.ok(['run-now', 'nightly'])
  const paths = receiver.received.map(({ path }) => path.replace(/\?rid=.*/, ''))
  t.strictSame(paths.filter((path) => path.startsWith('/ping')), ['/ping/fail', '/ping/fail', '/ping'], 'without a daemon, a start is old news when it could be sent')
  const told = receiver.received.filter(({ path }) => path.startsWith('/hook')).map(({ body }) => JSON.parse(body) as Record<string, unknown>)
  t.strictSame(told.map(({ event, severity }) => [event, severity]), [['failure', 'critical'], ['first_success', 'info']], 'the same failure is told once')
  t.match(told[0], { title: 'Backup nightly failed', schedule: { name: 'nightly' }, execution: { status: 'failed', error_code: 'hook.pre_failed' } })
  t.notOk(receiver.received.some(({ path }) => path === '/other'))
  await world.ok(['schedule', 'remove', 'nightly'])
  for (const name of ['hook', 'ping', 'other']) await world.ok(['notify', 'remove', name])
})

t.test('a receiver that is away, hangs or fails changes neither the result nor much of the time', async (t) => {
  const slow = await startReceiver(t)
  slow.answers = ['never']
  await world.ok(['schedule', 'add', 'quick', ...bare])
  await world.ok(['notify', 'add', 'hung', '--type', 'webhook', '--set', `url=${slow.url}/x`, '--event', 'success'])
  await world.ok(['notify', 'add', 'dead', '--type', 'webhook', '--set', `url=http://127.0.0.1:${await deadPort()}/x`, '--event', 'success'])
  const began = performance.now()
  await world.ok(['run-now', 'quick'])
  t.ok(performance.now() - began < 40_000)
  const [row] = await world.rows(`SELECT duration_seconds FROM backup_executions ORDER BY id DESC LIMIT 1`)
  t.ok(Number(row?.['duration_seconds']) < 15, 'the run itself did not wait')
  t.strictSame((await statuses()).filter((line) => / success /.test(line)).sort(), ['dead success info pending 1', 'hung success info pending 1'])
  const list = await world.ok(['notify', 'list'])
  t.match(list.stdout, /hung[\s\S]*notify\.|dead[\s\S]*notify\./)
  for (const name of ['hung', 'dead']) await world.ok(['notify', 'remove', name])
})

t.test('notify test says what happened, and no command shows a secret', async (t) => {
  receiver.received.length = 0
  await world.ok(['notify', 'add', 'chat', '--type', 'slack', '--set', `url=${receiver.url}/services/very-secret`])
  t.match((await world.ok(['notify', 'test', 'chat'])).stdout, /has taken the message/)
  t.equal(receiver.received.length, 1)
  receiver.answers = [{ status: 404, body: 'no_service very-secret' }]
  const refused = await world.run(['notify', 'test', 'chat', '--json'])
  t.equal(refused.code, 1)
  t.match(JSON.parse(refused.stdout), { error: { code: 'notify.rejected' } })
  receiver.answers = [200]
  t.equal((await world.run(['notify', 'test', 'nobody'])).code, 3)
  t.equal((await world.run(['notify', 'add', 'bad', '--type', 'slack', '--set', 'url=nonsense-url'])).code, 4)
  t.equal((await world.run(['notify', 'add', 'bad', '--type', 'slack', '--set', `url=${receiver.url}`, '--event', 'party'])).code, 2)
  t.equal((await world.run(['notify', 'add', 'bad', '--type', 'slack', '--set', `url=${receiver.url}`, '--schedule', 'gone'])).code, 3)
  await world.ok(['notify', 'change', 'chat', '--min-severity', 'critical'])
  await world.ok(['notify', 'disable', 'chat'])
  t.match((await world.ok(['notify', 'list'])).stdout, /chat +slack +disabled +from critical/)
  await world.ok(['notify', 'remove', 'chat'])
  const audit = JSON.stringify(await world.rows(`SELECT * FROM backup_audit_logs WHERE event_type LIKE 'notifier.%'`))
  t.match(audit, /notifier.created/)
  t.notMatch(audit + world.printed.join('\n'), /very-secret|url-secret|signing-secret/)
})

t.test('mail, with STARTTLS and a password', async (t) => {
  const { cert, key } = makeCertificate(tempDir(t, 'mail'))
  const mails: string[] = []
  const server = new SMTPServer({
    cert: readFileSync(cert), key: readFileSync(key), logger: false,
    onAuth: ({ username, password }, _session, done) => (username === 'me' && password === 'mail-password' ? done(null, { user: username }) : done(new Error('no'))),
    onData: (stream, _session, done) => {
      let text = ''
      stream.on('data', (chunk: Buffer) => (text += chunk.toString('utf8')))
      stream.on('end', () => {
        mails.push(text)
        done()
      })
    },
  })
  const listening = server.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  t.teardown(() => new Promise<void>((resolve) => server.close(() => resolve())))
  const set = { host: 'localhost', port: String((listening.address() as AddressInfo).port), username: 'me', from: 'backupd@example.org', to: 'Admin <admin@example.org>', ca: `{"$file": "${cert}"}` }
  const pairs = Object.entries(set).flatMap(([name, value]) => ['--set', `${name}=${value}`])
  await world.ok(['notify', 'add', 'mail', '--type', 'email', ...pairs, '--set', 'password=mail-password'])
  await world.ok(['notify', 'test', 'mail'])
  t.match(mails[0], /Subject: \[backupd\] info: Test of the notifier mail/)
  t.match(mails[0], /Auto-Submitted: auto-generated/)
  await world.ok(['notify', 'change', 'mail', '--set', 'password=wrong-password'])
  const refused = await world.run(['notify', 'test', 'mail'])
  t.equal(refused.code, 1)
  t.match(refused.stderr, /the mail server localhost/)
  await world.ok(['notify', 'change', 'mail', '--set', 'ca='])
  t.match((await world.run(['notify', 'test', 'mail'])).stderr, /certificate|self.signed/)
  await world.ok(['notify', 'remove', 'mail'])
  t.notMatch(world.printed.join('\n'), /mail-password|wrong-password/)
})

t.test('a daemon sends, tries again, and gives up where there is no hope', async (t) => {
  receiver.received.length = 0
  const flaky = await startReceiver(t)
  flaky.answers = [{ status: 429, headers: { 'retry-after': '1' } }, 500, 200]
  const closed = await startReceiver(t)
  closed.answers = [401]
  await world.ok(['schedule', 'add', 'watched', ...bare])
  await world.ok(['notify', 'add', 'flaky', '--type', 'webhook', '--set', `url=${flaky.url}/x`, '--event', 'success'])
  await world.ok(['notify', 'add', 'closed', '--type', 'webhook', '--set', `url=${closed.url}/x`, '--event', 'success'])
  await world.ok(['notify', 'add', 'good', '--type', 'webhook', '--set', `url=${receiver.url}/x`, '--event', 'success'])
  const daemon = world.daemon()
  await daemon.said('ready')
  await world.ok(['run-now', 'watched'])
  await eventually('the good one is told', async () => receiver.received.length === 1)
  await eventually('the closed one is given up', async () => (await statuses()).includes('closed success info failed 1'))
  t.ok((await statuses()).includes('flaky success info pending 1'))
  for (const n of [2, 3]) {
    // Sooner than the wait says.
    await world.rows(`UPDATE backup_notifications SET not_before = now() WHERE status = 'pending'`)
    await eventually(`attempt ${n}`, async () => flaky.received.length === n)
  }
  await eventually('the flaky one is told', async () => (await statuses()).includes('flaky success info sent 3'))
  t.equal(new Set(flaky.received.map(({ headers }) => headers['x-backupd-delivery'])).size, 1, 'the same delivery each time')
  t.equal(receiver.received.length, 1)
  t.equal(await daemon.end(), 0)
})
