import { spawnSync } from 'node:child_process'
import { connect, type Socket } from 'node:net'
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import type { Figures } from '../../src/catalog/figures.js'
import { metricsText } from '../../src/http/metrics.js'
import type { HealthEntry, Monitor } from '../../src/http/monitor.js'
import { startHttp } from '../../src/http/server.js'
import { createLog, silentLog } from '../../src/log.js'
import { Secret } from '../../src/secret.js'

const figures: Figures = {
  schedules: [
    { id: 1, name: 'nightly "shop"\nof \\ all', active: true, last_status: 'completed', last_attempt: 1_795_000_000, next_run: 1_795_086_400, total: 9, successful: 7, failed: 1, last_success: 1_795_000_060.5, duration: 60, size: 12_345_678_901, stored: 345_678 },
    { id: 2, name: 'nightly "shop"\nof \\ all', active: false, last_status: null, last_attempt: null, next_run: null, total: 0, successful: 0, failed: 0, last_success: null, duration: null, size: null, stored: null },
  ],
  storages: [{ id: 1, name: 'disk', type: 'local', active: true, healthy: false, last_check: 1_795_000_000, backups: 7, bytes: 2_345_678 }],
  queue: { pending: 1, running: 2, verifying: 0, expired: 0, workers: 3 },
}
const own = {
  started: 1_795_000_000.25, catalogUp: true, lastContact: 1_795_000_100, lastTick: 1_795_000_101, draining: false, running: 1, concurrency: 2,
  bytes: { read: 10, stored: 5, verified: 5 }, failures: [{ schedule: 'nightly', id: '1', code: 'dump.failed', count: 2 }, { schedule: 'nightly', id: '2', code: 'dump.failed', count: 1 }],
}

const state = { live: true, ready: true, entries: [] as HealthEntry[] }
const monitor: Monitor = { live: () => state.live, ready: () => state.ready, health: () => state.entries, metrics: () => metricsText(own, figures) }
const server = await startHttp({ host: '127.0.0.1', port: 0 }, monitor, silentLog())
t.teardown(() => server.close())
const url = `http://${server.address}`
const [host = '', port = ''] = server.address.split(':')

t.test('livez and readyz', async (t) => {
  for (const [path, key] of [['/livez', 'live'], ['/readyz', 'ready']] as const) {
    const good = await fetch(url + path)
    t.strictSame([good.status, await good.text(), good.headers.get('cache-control')], [200, 'ok\n', 'no-store'])
    state[key] = false
    const bad = await fetch(url + path)
    t.strictSame([bad.status, bad.headers.get('cache-control')], [503, 'no-store'])
    state[key] = true
  }
})

t.test('health: the worst counts, and nothing secret gets out', async (t) => {
  const secret = new Secret('hunter2-and-more')
  const checkedAt = performance.now() - 90_000
  state.entries = [{ name: 'a', status: 'healthy', message: 'fine', checkedAt }, { name: 'b', status: 'warning', message: `password ${secret.reveal()}`, checkedAt }]
  const warning = await fetch(`${url}/health`)
  t.equal(warning.status, 200)
  t.match(warning.headers.get('content-type'), 'application/json')
  t.match(await warning.json(), { status: 'warning', checks: [{ name: 'a', status: 'healthy', message: 'fine', age_seconds: 90 }, { name: 'b', message: 'password [secret]' }] })
  state.entries = [...state.entries, { name: 'c', status: 'critical', message: 'bad', checkedAt }]
  const critical = await fetch(`${url}/health`)
  t.equal(critical.status, 503)
  t.match(await critical.json(), { status: 'critical' })
})

t.test('metrics are what promtool calls good', async (t) => {
  const response = await fetch(`${url}/metrics`)
  t.match(response.headers.get('content-type'), /^text\/plain; version=0\.0\.4/)
  const text = await response.text()
  for (const complete of [text, metricsText(own, undefined), metricsText({ ...own, failures: [], lastContact: null }, { schedules: [], storages: [], queue: figures.queue })]) {
    const checked = spawnSync('promtool', ['check', 'metrics'], { input: complete, encoding: 'utf8' })
    t.strictSame([checked.status, checked.stderr, checked.stdout], [0, '', ''], 'the Debian package is prometheus')
  }
  t.match(text, 'backupd_schedule_last_success_timestamp_seconds{schedule="nightly \\"shop\\"\\nof \\\\ all",id="1"} 1795000060.5\n')
  t.notMatch(text, /last_success.*id="2"/, 'what is not known is left out')
  t.match(text, 'backupd_schedule_runs_total{schedule="nightly \\"shop\\"\\nof \\\\ all",id="1",result="other"} 1\n')
  t.match(text, 'backupd_failures_total{schedule="nightly",id="1",code="dump.failed"} 2\n')
  const series = text.split('\n').filter((line) => !line.startsWith('#') && line !== '').map((line) => line.replace(/ \S+$/, ''))
  t.equal(new Set(series).size, series.length, 'no series twice, also of schedules of one name')
  t.match(text, 'backupd_bytes_total{stage="stored"} 5\n')
})

t.test('only reading, and only what is there', async (t) => {
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
    const response = await fetch(`${url}/health`, { method, ...(method === 'POST' ? { body: 'x'.repeat(100_000) } : {}) })
    t.strictSame([response.status, response.headers.get('allow'), response.headers.get('cache-control')], [405, 'GET, HEAD', 'no-store'], method)
    await response.arrayBuffer()
  }
  const missing = await fetch(`${url}/admin`)
  t.strictSame([missing.status, missing.headers.get('cache-control'), await missing.text()], [404, 'no-store', 'not found\n'])
  const head = await fetch(`${url}/livez`, { method: 'HEAD' })
  t.strictSame([head.status, await head.text()], [200, ''])
})

t.test('an error inside is told to the log, not to the client', async (t) => {
  let told = ''
  const log = createLog({ level: 'info', human: false, stream: { write: (line: string) => (told += line) } as unknown as NodeJS.WritableStream })
  const broken = await startHttp({ host: '127.0.0.1', port: 0 }, { ...monitor, metrics: () => { throw new Error('the reason') } }, log)
  t.teardown(() => broken.close())
  const response = await fetch(`http://${broken.address}/metrics`)
  t.strictSame([response.status, await response.text()], [500, 'error\n'])
  t.match(told, 'the reason')
})

const raw = async (text: string): Promise<Socket> => {
  const socket = connect(Number(port), host)
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  socket.write(text)
  return socket
}
const closed = (socket: Socket): Promise<number> => {
  const began = performance.now()
  return new Promise((resolve) => socket.once('close', () => resolve(performance.now() - began)).resume())
}

t.test('slow and greedy clients are cut off, and nobody else notices', async (t) => {
  const long = await raw(`GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(20_000)}\r\n\r\n`)
  const [answer] = (await once(long, 'data')) as [Buffer]
  t.match(answer.toString(), 'HTTP/1.1 431')
  long.destroy()

  const slow = await Promise.all(Array.from({ length: 40 }, () => raw('GET /livez HTTP/1.1\r\nHost: x\r\n')))
  const drip = setInterval(() => slow.forEach((socket) => socket.write('X-Drip: 1\r\n')), 500)
  const ends = Promise.all(slow.map(closed))
  const began = performance.now()
  for (let n = 0; n < 20; n += 1) {
    const response = await fetch(`${url}/livez`, { headers: { connection: 'close' } })
    t.equal(response.status, 200)
    await response.text()
  }
  t.ok(performance.now() - began < 3_000, 'answers come at once')
  const times = await ends
  clearInterval(drip)
  t.ok(Math.max(...times) < 9_000, `all gone after ${Math.round(Math.max(...times))} ms`)

  const body = await raw('POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc')
  t.ok((await closed(body)) < 12_000, 'a body that does not come')
})

t.test('more connections than there may be are refused', async (t) => {
  const sockets = await Promise.all(Array.from({ length: 100 }, () => raw('')))
  await wait(300)
  t.ok(sockets.filter((socket) => !socket.destroyed && !socket.readableEnded).length <= 100)
  const open = sockets.filter((socket) => socket.readyState === 'open')
  t.ok(open.length <= 64, `${open.length} are open`)
  for (const socket of sockets) socket.destroy()
  await wait(100)
  t.equal((await fetch(`${url}/livez`)).status, 200)
})

t.test('a port that is taken', async (t) => {
  await t.rejects(startHttp({ host, port: Number(port) }, monitor, silentLog()), { code: 'http.listen', kind: 'configuration', message: `cannot listen on ${server.address}: the port is in use` })
  await t.rejects(startHttp({ host: '192.0.2.1', port: 0 }, monitor, silentLog()), { code: 'http.listen', message: /no such address/ })
})
