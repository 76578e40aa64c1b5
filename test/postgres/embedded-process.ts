import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openCatalog, type Catalog } from '../../src/catalog/connect.js'
import { silentLog } from '../../src/log.js'
import type { Account } from '../support/unprivileged.js'

/** The embedded catalog under `stateDir`, opened by this process. */
export const open = (stateDir: string, signal = new AbortController().signal): Promise<Catalog> =>
  openCatalog({ databaseUrl: undefined, stateDir, log: silentLog(), signal })

/** What the server's own file says. */
export const pidIn = (state: string): number | undefined => {
  const file = join(state, 'catalog/pgdata/postmaster.pid')
  return existsSync(file) ? Number(readFileSync(file, 'utf8').split('\n')[0]) : undefined
}

/** Whether a process runs; a zombie does not. */
export const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

const module = (path: string): string => JSON.stringify(fileURLToPath(new URL(`../../src/${path}`, import.meta.url)))

const prelude = `
  const { openCatalog } = await import(${module('catalog/connect.ts')})
  const { silentLog } = await import(${module('log.ts')})
  const catalog = await openCatalog({ databaseUrl: undefined, stateDir: process.env.STATE, log: silentLog(), signal: new AbortController().signal })
  const { sql } = catalog
`

// Without the one that notes every process under .tap, where another user may not write; tap puts it into NODE_OPTIONS too.
const loaders = process.execArgv.filter((argument) => !argument.includes('processinfo'))

/** A process of its own that opens the embedded catalog under `state` and runs `body`, which has `catalog` and `sql`. */
export const otherProcess = (state: string, body: string, account?: Account): ChildProcess =>
  spawn('env', ['NODE_OPTIONS=', process.execPath, ...loaders, '--input-type=module', '-e', prelude + body], {
    env: { ...process.env, STATE: state }, stdio: ['ignore', 'pipe', 'inherit'], ...account,
  })

/** What such a process writes, when it has ended well. */
export const answerOf = async (child: ChildProcess): Promise<string> => {
  let said = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => { said += text })
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`exit code ${code}: ${said}`)
  return said.trim()
}
