import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { listSources } from '../../src/catalog/sources.js'
import { tempDir } from '../support/temp.js'
import { reachableByAnybody, unprivileged } from '../support/unprivileged.js'
import { alive, answerOf, open, otherProcess, pidIn } from './embedded-process.js'

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter((text) => text !== '').map(Number)

/** The postmaster and all of its children, at once and without a word. */
const killAll = (state: string): number => {
  const pid = pidIn(state) ?? 0
  const children = childrenOf(pid)
  for (const one of [pid, ...children]) process.kill(one, 'SIGKILL')
  return pid
}

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

t.test('kill -9 of the server', async (t) => {
  const state = join(tempDir(t), 'state')
  const body = `
    await sql\`INSERT INTO backup_keys (name, recipient, fingerprint) VALUES ('kept', 'r', 'f')\`
    console.log('ready')
    setInterval(() => {}, 1000)`

  t.test('with the program: the next one finds the catalog whole', async (t) => {
    const child = otherProcess(state, body)
    await once(child.stdout ?? child, 'data')
    // The program first: while it lives it starts the server again, and clears away what the dead one left.
    child.kill('SIGKILL')
    const pid = killAll(state)
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
  for (const delay of [150, 600]) {
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

// An ordinary user runs all of the above as one, and has nobody else to be.
const alone = process.getuid?.() !== 0 ? 'this is an ordinary user already'
  : reachableByAnybody(fileURLToPath(new URL('.', import.meta.url)).replace(/\/$/, '')) ? false : 'the checkout lies under a folder that other users cannot enter'
t.test('as an ordinary user, and root beside it', { skip: alone }, async (t) => {
  const state = tempDir(t)
  const account = unprivileged() ?? { uid: 65_534, gid: 65_534 }
  chownSync(state, account.uid, account.gid)
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
