import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Account } from '../support/unprivileged.js'

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
