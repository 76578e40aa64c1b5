import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { serviceManager } from '../../src/daemon/systemd.js'
import { createLog, silentLog } from '../../src/log.js'
import { tempDir, type Teardown } from '../support/temp.js'
import { eventually } from './daemons.js'

// Perl is part of every Debian, and can do what Node cannot: listen at a datagram socket.
const listener = async (t: Teardown): Promise<{ path: string; heard: string[] }> => {
  const path = join(tempDir(t), 'notify')
  const child = spawn('perl', [fileURLToPath(new URL('systemd.pl', import.meta.url)), path], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const heard: string[] = []
  let rest = ''
  child.stdout.on('data', (block: Buffer) => {
    const lines = (rest + block.toString()).split('\n')
    rest = lines.pop() ?? ''
    heard.push(...lines.map((line) => line.trim()))
  })
  await eventually('the listener', async () => heard.includes('listening'))
  heard.length = 0
  return { path, heard }
}

t.test('says what it is told, in order', async (t) => {
  const { path, heard } = await listener(t)
  const manager = serviceManager({ NOTIFY_SOCKET: path }, silentLog())
  void manager.notify('READY=1', 'STATUS=waiting for the catalog')
  void manager.notify('STATUS=1 running, 2 waiting')
  await manager.notify('STOPPING=1')
  await eventually('three messages', async () => heard.filter((line) => line.includes('=')).length >= 3)
  t.match(heard.filter((line) => /READY|STATUS|STOPPING/.test(line)), [/^READY=1 STATUS=waiting for the catalog/, /^STATUS=1 running, 2 waiting/, /^STOPPING=1/])
})

t.test('the watchdog hears of it as long as it lives, and no longer', async (t) => {
  const { path, heard } = await listener(t)
  const manager = serviceManager({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '400000', WATCHDOG_PID: String(process.pid) }, silentLog())
  t.teardown(() => manager.stop())
  let live = true
  manager.keepAlive(() => live)
  await eventually('three signs of life', async () => heard.filter((line) => line === 'WATCHDOG=1').length >= 3, 20_000)
  live = false
  await wait(600)
  const count = heard.filter((line) => line === 'WATCHDOG=1').length
  await wait(800)
  t.equal(heard.filter((line) => line === 'WATCHDOG=1').length, count)
})

t.test('of another process it says nothing', async (t) => {
  const { path, heard } = await listener(t)
  const manager = serviceManager({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '100000', WATCHDOG_PID: '1' }, silentLog())
  t.teardown(() => manager.stop())
  manager.keepAlive(() => true)
  await wait(600)
  t.strictSame(heard, [])
})

t.test('without systemd there is nobody to tell, and a socket that is gone is no failure', async (t) => {
  await serviceManager({}, silentLog()).notify('READY=1')
  let told = ''
  const log = createLog({ level: 'warn', human: false, stream: { write: (line: string) => (told += line) } as unknown as NodeJS.WritableStream })
  const manager = serviceManager({ NOTIFY_SOCKET: join(tempDir(t), 'nobody') }, log)
  await manager.notify('READY=1')
  await manager.notify('READY=1')
  t.equal(told.split('\n').filter((line) => line !== '').length, 1, 'said once')
})
