import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('../..', import.meta.url))
const unit = readFileSync(join(root, 'systemd/backupd.service'), 'utf8')
// What systemd-analyze of Debian 12 gave when the unit was written. A higher number needs a reason that is written into the unit.
const highestExposure = 1.3

const settings = (name: string): string[] => unit.split('\n').flatMap((line) => (line.startsWith(`${name}=`) ? [line.slice(name.length + 1)] : []))
const seconds = (name: string): number => Number(settings(name)[0])

t.test('systemd accepts the unit', async (t) => {
  const dir = t.testdir()
  // The command is looked up where npm installs it; here it is not installed, so the built one stands in.
  t.match(unit, /^ExecStart=backupd daemon$/m)
  const file = join(dir, 'backupd.service')
  writeFileSync(file, unit.replace('ExecStart=backupd ', `ExecStart=${join(root, 'dist/main.js')} `))
  const { status, stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', file], { encoding: 'utf8' })
  t.equal(status, 0, stderr)
  t.strictSame([stdout, stderr].join('').split('\n').filter((line) => line.includes('backupd.service')), [], 'no warning about it')
})

t.test('systemd refuses a wrong unit, so that the test above can fail', async (t) => {
  const file = join(t.testdir({ 'backupd.service': unit.replace('ExecStart=backupd ', 'ExecStart=/no/such/program ') }), 'backupd.service')
  t.not(spawnSync('systemd-analyze', ['verify', '--man=no', file]).status, 0)
})

t.test('the exposure is as low as the work allows', async (t) => {
  const report = execFileSync('systemd-analyze', ['security', '--offline=true', '--no-pager', join(root, 'systemd/backupd.service')], { encoding: 'utf8' })
  const overall = Number(/Overall exposure level for \S+: ([\d.]+)/.exec(report)?.[1])
  t.comment(report.split('\n').filter((line) => line.startsWith('✗')).map((line) => line.replace(/\s+/g, ' ')).join('\n'))
  t.comment(`exposure ${overall}`)
  t.ok(overall <= highestExposure, `exposure ${overall}, at most ${highestExposure}`)
})

t.test('stopping takes longer than draining, and signals reach the daemon first', async (t) => {
  const [drain, cleanUp, catalog] = [30, 45, 20]
  t.ok(seconds('TimeoutStopSec') >= drain + cleanUp + catalog, 'the drain, cancelling and the end of the catalog fit')
  t.strictSame(settings('KillMode'), ['mixed'])
  t.ok(seconds('WatchdogSec') >= 10)
})

t.test('no secret is given in a variable', async (t) => {
  for (const line of settings('Environment')) t.match(line, /^BACKUPD_\w+_FILE=%d\//)
  t.match(unit, /^LoadCredential=secret-key:/m)
})

t.test('sysusers makes the user that the unit runs as', async (t) => {
  const dir = t.testdir()
  mkdirSync(join(dir, 'usr/lib/sysusers.d'), { recursive: true })
  mkdirSync(join(dir, 'etc'))
  copyFileSync(join(root, 'systemd/backupd.sysusers'), join(dir, 'usr/lib/sysusers.d/backupd.conf'))
  execFileSync('systemd-sysusers', [`--root=${dir}`], { stdio: 'ignore' })
  const [user] = settings('User')
  const [state] = settings('StateDirectory')
  t.match(readFileSync(join(dir, 'etc/passwd'), 'utf8'), new RegExp(`^${user}:[^:]*:\\d+:\\d+:[^:]*:/var/lib/${state}:\\S*/nologin$`, 'm'))
  t.match(readFileSync(join(dir, 'etc/group'), 'utf8'), new RegExp(`^${settings('Group')[0]}:`, 'm'))
})
