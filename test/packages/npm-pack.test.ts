import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('../..', import.meta.url))
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }

t.test('the package installs elsewhere and runs', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'backupd-pack-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  // dist/ is there already (pretest builds it); building again would pull it from under the tests beside this one.
  const packed = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', dir], { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  const [{ filename, files }] = JSON.parse(packed) as [{ filename: string; files: { path: string }[] }]
  const paths = files.map(({ path }) => path)
  for (const path of ['dist/main.js', 'package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'systemd/backupd.service', 'systemd/backupd.sysusers', 'docs/restore-without-backupd.md']) {
    t.ok(paths.includes(path), `${path} is in the package`)
  }
  t.ok(paths.some((path) => /^drizzle\/.*\.sql$/.test(path)), 'the migrations are in the package')
  t.strictSame(paths.filter((path) => /^(src|test|bench|scripts|\.ci)\//.test(path)), [], 'nothing that only development needs')

  const prefix = join(dir, 'prefix')
  execFileSync('npm', ['install', '--global', '--prefix', prefix, '--omit=dev', '--no-audit', '--no-fund', join(dir, filename)], { cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] })
  const command = join(prefix, 'bin/backupd')
  const env = { PATH: process.env['PATH'] ?? '', HOME: dir }
  t.equal(execFileSync(command, ['--version'], { cwd: dir, env, encoding: 'utf8' }).trim(), version)
  t.match(execFileSync(command, ['--help'], { cwd: dir, env, encoding: 'utf8' }), /Usage: backupd[\s\S]*Exit codes:/)
  t.notOk(existsSync(join(prefix, 'lib/node_modules/backupd/node_modules/tap')), 'no development dependency is installed')
})

