import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import postgres from 'postgres'
import { runCli, type CliOptions, type CliResult } from '../support/cli.js'
import { startPostgres, type TestServer } from '../support/postgres-server.js'
import { tempDir, type Teardown } from '../support/temp.js'

/** A server for the catalogs, and the sources, of a test file. */
export const serverFor = async (t: Teardown): Promise<TestServer> => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  return server
}

export interface Machine {
  /** Runs the program on this machine. */
  cli(args: readonly string[], options?: CliOptions): Promise<CliResult>
  stateDir: string
  catalogUrl: string
  /** A statement on the catalog. */
  query(statement: string): Promise<Record<string, unknown>[]>
  /** A path in a folder that goes away with the test. */
  path(name: string): string
  /** All that the program has printed, and what it was called with. */
  transcript(): string
}

/** An empty database of its own on `server`. */
export const newDatabase = async (server: TestServer): Promise<string> => {
  const name = `db_${randomBytes(6).toString('hex')}`
  const sql = postgres(server.url(), { max: 1, onnotice: () => undefined })
  await sql.unsafe(`CREATE DATABASE ${name}`)
  await sql.end()
  return name
}

/** A machine with an empty catalog on `server` and an empty state directory. */
export const machineOn = async (t: Teardown, server: TestServer, env: Record<string, string> = {}): Promise<Machine> => {
  const catalogUrl = server.url(await newDatabase(server))
  const home = tempDir(t, 'machine')
  const stateDir = join(home, 'state')
  const said: string[] = []
  return {
    stateDir, catalogUrl,
    cli: async (args, options = {}) => {
      const result = await runCli(args, { ...options, env: { BACKUPD_STATE_DIR: stateDir, BACKUPD_DATABASE_URL: catalogUrl, ...env, ...options.env } })
      said.push(`$ backupd ${args[0] ?? ''} ${args[1] ?? ''}\n${result.stdout}${result.stderr}`)
      return result
    },
    query: async (statement) => {
      const sql = postgres(catalogUrl, { max: 1, onnotice: () => undefined })
      try {
        return [...(await sql.unsafe(statement))]
      } finally {
        await sql.end()
      }
    },
    path: (name) => join(home, name),
    transcript: () => said.join('\n'),
  }
}

/** What a failed command says with `--json`. */
export interface Failure {
  error: { code: string; message: string; hint?: string }
}

/** Adds a local storage named `disk` and a key, without which no schedule can be added. */
export const withStorageAndKey = async ({ cli, path }: Machine): Promise<void> => {
  for (const args of [['storage', 'add', 'disk', '--type', 'local', '--set', `base_path=${path('repository')}`], ['key', 'generate']]) {
    const { code, stderr } = await cli(args)
    if (code !== 0) throw new Error(stderr)
  }
}
