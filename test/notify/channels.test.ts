import { createHmac } from 'node:crypto'
import t from 'tap'
import { notifierTypes } from '../../src/catalog/statuses.js'
import type { BackupdError } from '../../src/errors.js'
import { channelTypes, type ChannelType, type Message } from '../../src/notify/channel.js'
import { channelKinds, channelProblems, openChannel } from '../../src/notify/registry.js'
import { deadPort, startReceiver, type Answer } from './receiver.js'

const failed: Message = {
  id: '7-1', event: 'failure', severity: 'critical', title: 'Backup nightly failed', message: 'pg_dump: <!channel> *bold* @everyone [link](http://evil.example)',
  schedule: { id: 3, name: 'Nightly Shop' }, storage: { id: 1, name: 'disk' },
  execution: { id: 42, backup_id: '20261124T020000Z-nightly-abc234', status: 'failed', attempt: 2, size_bytes: 5 * 1024 ** 2, duration_seconds: 12, error_code: 'dump.failed', hint: 'Look at the server.' },
  details: {}, raised_at: '2026-11-24T02:00:12.000Z', sender: { program: 'backupd', version: '0.1.0', host: 'db1' },
}
const never = new AbortController().signal

/** Kinds that speak HTTP, and what they need besides the address of a server. */
const overHttp: Record<Exclude<ChannelType, 'email'>, (url: string) => Record<string, unknown>> = {
  webhook: (url) => ({ url: `${url}/hook`, secret: 'shared-secret' }),
  slack: (url) => ({ url: `${url}/services/T/B/x` }),
  discord: (url) => ({ url: `${url}/api/webhooks/1/x` }),
  teams: (url) => ({ url: `${url}/workflows/x` }),
  telegram: (url) => ({ api_url: url, bot_token: '123:abc-DEF', chat_id: -100 }),
  ntfy: (url) => ({ url, topic: 'backups', token: 'tk_1' }),
  healthchecks: (url) => ({ url: `${url}/ping/{schedule}` }),
}
const kinds = Object.keys(overHttp) as (keyof typeof overHttp)[]

t.test('every kind is known everywhere', (t) => {
  t.strictSame([...channelTypes], [...notifierTypes])
  t.strictSame(Object.keys(channelKinds).sort(), [...channelTypes].sort())
  t.strictSame(Object.values(channelKinds).map(({ type }) => type), Object.keys(channelKinds))
  t.end()
})

t.test('what receivers get', async (t) => {
  const receiver = await startReceiver(t)
  const send = async (type: keyof typeof overHttp, message: Partial<Message> = {}, more: Record<string, unknown> = {}) => {
    receiver.received.length = 0
    await openChannel(type, { ...overHttp[type](receiver.url), ...more }).send({ ...failed, ...message }, { signal: never })
    const [one] = receiver.received
    if (one === undefined || receiver.received.length !== 1) throw new Error('not one request')
    return { ...one, json: type === 'healthchecks' ? {} : (JSON.parse(one.body) as Record<string, unknown>) }
  }
  await t.test('webhook: the message, signed over time and body', async (t) => {
    const { path, headers, body, json } = await send('webhook')
    t.equal(path, '/hook')
    t.strictSame(json, failed)
    const timestamp = String(headers['x-backupd-timestamp'])
    t.equal(headers['x-backupd-signature'], `sha256=${createHmac('sha256', 'shared-secret').update(`${timestamp}.${body}`).digest('hex')}`)
    t.ok(Math.abs(Number(timestamp) - Date.now() / 1000) < 60)
    t.match(headers, { 'x-backupd-event': 'failure', 'x-backupd-delivery': '7-1', 'content-type': 'application/json' })
    t.equal((await send('webhook', {}, { secret: null })).headers['x-backupd-signature'], undefined)
    t.equal((await send('webhook', {}, { authorization: 'Bearer abc' })).headers['authorization'], 'Bearer abc')
  })
  await t.test('chats: nothing in a message is a link or calls everybody', async (t) => {
    const slack = await send('slack')
    t.notMatch(slack.body, /<!channel>/)
    t.match(slack.json['attachments'], [{ color: '#d32f2f', text: /&lt;!channel&gt;/ }])
    const discord = await send('discord')
    t.match(discord.json, { allowed_mentions: { parse: [] }, embeds: [{ color: 0xd32f2f, timestamp: failed.raised_at }] })
    t.match(JSON.stringify(discord.json), /\\\\\[link\\\\\]/)
    const teams = await send('teams')
    t.match(teams.json, { type: 'message', attachments: [{ contentType: 'application/vnd.microsoft.card.adaptive', content: { type: 'AdaptiveCard' } }] })
    const telegram = await send('telegram')
    t.equal(telegram.path, '/bot123:abc-DEF/sendMessage')
    t.match(telegram.json, { chat_id: '-100', text: /Backup nightly failed/, parse_mode: undefined, disable_notification: false })
  })
  await t.test('ntfy: priority and token', async (t) => {
    const { headers, json } = await send('ntfy')
    t.equal(headers['authorization'], 'Bearer tk_1')
    t.match(json, { topic: 'backups', title: failed.title, priority: 5 })
    t.match((await send('ntfy', { severity: 'info' })).json, { priority: 3 })
    t.equal((await send('ntfy', {}, { token: null, username: 'u', password: 'p' })).headers['authorization'], `Basic ${Buffer.from('u:p').toString('base64')}`)
  })
  await t.test('healthchecks: start, success, failure and what changes nothing', async (t) => {
    const paths: string[] = []
    for (const message of [{ event: 'start', severity: 'info' }, { event: 'success', severity: 'info' }, {}, { severity: 'warning' }, { event: 'test', severity: 'info' }] as const) paths.push((await send('healthchecks', message)).path)
    const rid = /rid=([0-9a-f-]{36})$/.exec(paths[0] ?? '')?.[1]
    t.match(rid, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/)
    t.strictSame(paths, ['/start', '', '/fail', '/log', '/log'].map((end) => `/ping/nightly-shop${end}?rid=${rid}`))
  })
  for (const type of kinds) {
    await t.test(`${type}: long texts are cut to what the service takes`, async (t) => {
      const { body } = await send(type, { message: 'x'.repeat(2000), title: 'y'.repeat(200), execution: { ...failed.execution, error_message: 'z'.repeat(1000), hint: 'h'.repeat(3000) } })
      t.ok(body.length < 8000, String(body.length))
      if (type === 'ntfy') t.ok(Buffer.byteLength(body) < 4096)
    })
  }
})

const outcomes: { name: string; answer: Answer; code: string; retryable: boolean; details?: unknown }[] = [
  { name: 'an error of the server', answer: { status: 500, body: 'boom' }, code: 'notify.unavailable', retryable: true },
  { name: 'a wish to wait', answer: { status: 429, headers: { 'retry-after': '7' } }, code: 'notify.throttled', retryable: true, details: { retryAfter: 7000 } },
  { name: 'a wish to wait, in the body', answer: { status: 429, body: '{"parameters":{"retry_after":3}}' }, code: 'notify.throttled', retryable: true, details: { retryAfter: 3000 } },
  { name: 'a refusal', answer: 404, code: 'notify.rejected', retryable: false },
  { name: 'wrong credentials', answer: 403, code: 'notify.auth', retryable: false },
  { name: 'a redirection', answer: { status: 302, headers: { location: 'http://127.0.0.1:1/' } }, code: 'notify.rejected', retryable: false },
  { name: 'a broken connection', answer: 'reset', code: 'notify.unreachable', retryable: true },
]

t.test('what receivers answer', async (t) => {
  const receiver = await startReceiver(t)
  for (const type of kinds) {
    for (const { name, answer, code, retryable, details } of outcomes) {
      receiver.answers = [answer]
      const error: BackupdError = await openChannel(type, overHttp[type](receiver.url)).send(failed, { signal: never }).then(() => { throw new Error('taken') }, (thrown: BackupdError) => thrown)
      t.match(error, { code, retryable }, `${type}: ${name}`)
      if (details !== undefined) t.match(error.details, details)
      t.notMatch(error.message, /services\/T|abc-DEF|webhooks\/1/, 'the path of a URL is a secret')
    }
    for (const answer of ['never', 'drip'] as const) {
      receiver.answers = [answer]
      const began = performance.now()
      const limit = new AbortController()
      setTimeout(() => limit.abort(), 300)
      await t.rejects(openChannel(type, overHttp[type](receiver.url)).send(failed, { signal: limit.signal }), `${type}: ${answer}`)
      t.ok(performance.now() - began < 3_000, 'it ends with its signal')
    }
    const port = await deadPort()
    await t.rejects(openChannel(type, overHttp[type](`http://127.0.0.1:${port}`)).send(failed, { signal: never }), { code: 'notify.unreachable', retryable: true })
  }
})

t.test('configurations that cannot be', (t) => {
  const cases: [ChannelType, Record<string, unknown>, RegExp[]][] = [
    ['webhook', {}, [/url is missing/]],
    ['webhook', { url: 'ftp://x/y' }, [/url is not valid: expected a URL/]],
    ['webhook', { url: 'https://x/y', secret: 'short' }, [/secret is not valid/]],
    ['webhook', { url: 'https://x/y', colour: 'red' }, [/colour is not a key/]],
    ['slack', { url: 'x' }, [/url is not valid/]],
    ['telegram', { bot_token: '1:a/../b', chat_id: 'me' }, [/bot_token/, /chat_id/]],
    ['ntfy', { topic: 'a/b' }, [/topic/]],
    ['email', { host: 'mail', from: 'a@b', to: 'nobody' }, [/to is not valid/]],
    ['email', { host: 'mail', from: 'a@b', to: 'c@d', port: '99999' }, [/port/]],
    ['email', { host: 'mail', from: 'a@b', to: 'c@d', tls: 'none', password: 'x' }, [/a password needs/]],
    ['email', { host: 'mail', from: 'a@b\r\nBcc: x@y', to: 'c@d' }, [/from/]],
    ['email', { host: 'mail', from: 'a@b', to: 'A <c@d>, e@f' }, []],
    ['webhook', { url: 'https://x/y', secret: '', authorization: null }, []],
  ]
  for (const [type, config, expected] of cases) {
    const problems = channelProblems(type, config).map(({ message }) => message)
    t.equal(problems.length, expected.length, JSON.stringify(problems))
    expected.forEach((pattern, at) => t.match(problems[at], pattern))
    if (expected.length > 0) t.throws(() => openChannel(type, config), { code: 'notify.config_invalid', kind: 'configuration' })
  }
  t.throws(() => openChannel('pigeon', {}), { code: 'notify.config_invalid' })
  t.end()
})
