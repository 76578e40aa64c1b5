import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import postgres from 'postgres'
import t from 'tap'
import { startPostgres } from './postgres-server.js'

t.test('servers start side by side, ask for the password, and come back after kill -9', async (t) => {
  const servers = await Promise.all([startPostgres(), startPostgres({ major: 12, settings: { work_mem: '9MB' } }), startPostgres({ major: 18 })])
  t.teardown(() => Promise.all(servers.map((server) => server.stop())))
  for (const server of servers) {
    const sql = postgres(server.url(), { max: 1 })
    t.match((await sql`show server_version`)[0]?.['server_version'], new RegExp(`^${server.version}`))
    await sql.end()
    const wrong = postgres(server.url('postgres', 'postgres', 'wrong'), { max: 1 })
    await t.rejects(wrong`select 1`, { code: '28P01' })
    await wrong.end()
  }
  const [server] = servers
  await server.kill9()
  await server.start()
  const sql = postgres(server.url(), { max: 1 })
  t.equal((await sql`select 1 as one`)[0]?.['one'], 1)
  await sql.end()
  await server.stop()
  t.notOk(existsSync(server.dataDir))
})

t.test('a server goes away with the process that started it, killed or not', async (t) => {
  const module = fileURLToPath(new URL('./postgres-server.ts', import.meta.url))
  const script = `const { startPostgres } = await import(${JSON.stringify(module)})
    const server = await startPostgres()
    console.log(server.dataDir)
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, [...process.execArgv, '--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  const dataDir = line.toString().trim()
  t.ok(existsSync(dataDir))
  child.kill('SIGKILL')
  for (const until = Date.now() + 20_000; existsSync(dataDir) && Date.now() < until; ) await sleep(50)
  t.notOk(existsSync(dataDir))
})
