import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { openCatalog, type Catalog } from '../../src/catalog/connect.js'
import { connectTo } from '../../src/catalog/client.js'
import { insertSource, listSources } from '../../src/catalog/sources.js'
import { exitCodeOf } from '../../src/errors.js'
import { silentLog } from '../../src/log.js'
import { Secret } from '../../src/secret.js'
import { tempDir } from '../support/temp.js'
import { unprivileged } from '../support/unprivileged.js'
import { answerOf, otherProcess } from './embedded-process.js'

const open = (stateDir: string, signal = new AbortController().signal): Promise<Catalog> =>
  openCatalog({ databaseUrl: undefined, stateDir, log: silentLog(), signal })

const pidIn = (state: string): number | undefined => {
  const file = join(state, 'catalog/pgdata/postmaster.pid')
  return existsSync(file) ? Number(readFileSync(file, 'utf8').split('\n')[0]) : undefined
}

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter((text) => text !== '').map(Number)

/** The postmaster and all of its children, at once and without a word. */
const killAll = (state: string): number => {
  const pid = pidIn(state) ?? 0
  const children = childrenOf(pid)
  for (const one of [pid, ...children]) process.kill(one, 'SIGKILL')
  return pid
}

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

t.test('five processes at once share one server, and the last one stops it', async (t) => {
  const state = join(tempDir(t), 'state')
  const body = `
    for (let n = 0; n < 3; n += 1) await sql\`INSERT INTO backup_keys (name, recipient, fingerprint) VALUES (\${process.pid + '-' + n}, \${process.pid + '-' + n}, 'f')\`
    await catalog.close()
    console.log('done')`
  for (const round of [1, 2]) {
    t.strictSame(await Promise.all([1, 2, 3, 4, 5].map(() => answerOf(otherProcess(state, body)))), Array(5).fill('done'), `round ${round}`)
    t.equal(pidIn(state), undefined)
  }
  const catalog = await open(state)
  t.equal((await catalog.sql`SELECT count(*) AS n FROM backup_keys`)[0]?.['n'], 30)
  await catalog.close()
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

t.test('kill -9 of the server', async (t) => {
  const state = join(tempDir(t), 'state')
  const body = `
    await sql\`INSERT INTO backup_keys (name, recipient, fingerprint) VALUES ('kept', 'r', 'f')\`
    console.log('ready')
    setInterval(() => {}, 1000)`

  t.test('with the program: the next one finds the catalog whole', async (t) => {
    const child = otherProcess(state, body)
    await once(child.stdout ?? child, 'data')
    const pid = killAll(state)
    child.kill('SIGKILL')
    await once(child, 'close')
    t.equal(pidIn(state), pid, 'its file is left behind')
    const catalog = await open(state)
    t.strictSame((await catalog.sql`SELECT name FROM backup_keys`).map((row) => row['name']), ['kept'])
    await catalog.close()
  })

  t.test('under the program: it is started again and used again', async (t) => {
    const catalog = await open(state)
    killAll(state)
    const deadline = Date.now() + 20_000
    const count = async (): Promise<unknown> => {
      for (;;) {
        try {
          return (await catalog.sql`SELECT count(*) AS n FROM backup_keys`)[0]?.['n']
        } catch (error) {
          if (Date.now() > deadline) throw error
          await sleep(100)
        }
      }
    }
    t.equal(await count(), 1)
    await catalog.close()
    t.equal(pidIn(state), undefined)
  })

  t.test('of the program alone: the server stays, is taken over, and stopped', async (t) => {
    const child = otherProcess(state, `console.log('ready'); setInterval(() => {}, 1000)`)
    await once(child.stdout ?? child, 'data')
    child.kill('SIGKILL')
    await once(child, 'close')
    const pid = pidIn(state) ?? 0
    t.ok(alive(pid))
    const catalog = await open(state)
    t.equal(pidIn(state), pid)
    await catalog.close()
    t.equal(pidIn(state), undefined)
  })

  t.test('its number now belongs to another program of the same user', async (t) => {
    const other = spawn('sleep', ['60'], { stdio: 'ignore', cwd: '/', ...unprivileged() })
    t.teardown(() => other.kill('SIGKILL'))
    const data = join(state, 'catalog/pgdata')
    const { uid, gid } = statSync(data)
    const file = join(data, 'postmaster.pid')
    writeFileSync(file, `${other.pid}\n/proc/self/fd/3\n1700000000\n5432\n/proc/self/fd/4\n\n  1234567 7654321\nready   \n`, { mode: 0o600 })
    chownSync(file, uid, gid)
    const catalog = await open(state)
    t.equal((await catalog.sql`SELECT count(*) AS n FROM backup_keys`)[0]?.['n'], 1)
    await catalog.close()
    t.equal(other.exitCode, null, 'and that program lives on')
  })
})

t.test('an initialisation that was killed leaves nothing that looks like a catalog', async (t) => {
  const state = join(tempDir(t), 'state')
  for (const delay of [150, 400, 700]) {
    const child = otherProcess(state, 'await catalog.close()')
    for (const until = Date.now() + 20_000; !existsSync(join(state, 'catalog/password')) && Date.now() < until; ) await sleep(5)
    await sleep(delay)
    child.kill('SIGKILL')
    await once(child, 'close')
  }
  const catalog = await open(state)
  t.strictSame(await listSources(catalog.db), [])
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

t.test('as an ordinary user, and root beside it', { skip: process.getuid?.() === 0 ? false : 'this is an ordinary user already' }, async (t) => {
  const state = tempDir(t)
  const account = unprivileged() ?? { uid: 65_534, gid: 65_534 }
  chownSync(state, account.uid, account.gid)
  const parent = join(state, '..')
  t.ok(existsSync(parent))
  const body = `
    await sql\`INSERT INTO backup_keys (name, recipient, fingerprint) VALUES (\${'user ' + process.getuid()}, \${String(process.pid)}, 'f')\`
    console.log((await sql\`SELECT name FROM backup_keys ORDER BY id\`).map(({ name }) => name).join())
    await catalog.close()`
  t.equal(await answerOf(otherProcess(state, body, account)), `user ${account.uid}`)
  const catalog = await open(state)
  t.equal(statSync(`/proc/${pidIn(state)}`).uid, account.uid, 'root starts the server as that user')
  await catalog.sql`DELETE FROM backup_keys`
  await catalog.close()
  t.equal(await answerOf(otherProcess(state, body, account)), `user ${account.uid}`)
  for (const name of readdirSync(join(state, 'catalog'))) t.equal(statSync(join(state, 'catalog', name)).uid, account.uid, name)
})
