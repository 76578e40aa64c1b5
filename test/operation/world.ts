import { createReadStream, existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { runCli, type CliOptions, type CliResult } from '../support/cli.js'
import { startPostgres, type ServerOptions, type TestServer } from '../support/postgres-server.js'
import { connectTo } from '../support/sql.js'
import { tempDir, type Teardown } from '../support/temp.js'

/** An execution as `--json` prints it. */
export interface ShownExecution {
  id: number
  backup_id: string
  status: string
  verification_status: string
  size_bytes: number
  compressed_size_bytes: number
  compression_ratio: number
  included_components: string[]
  storage_location: string
  checksum: string
  encryption_key_hash: string | null
  verified_at: string | null
  verification_checksum: string | null
  duration_seconds: number
  warnings: string[]
  error_message: string | null
  error_details: { code: string; stage: string; stderr?: string[]; kind: string } | null
  backup_config: Record<string, unknown>
  execution_metadata: Record<string, unknown>
}

/** A server with a catalog and a source database `shop`, a local storage `disk`, and the program to run against them. */
export interface World {
  server: TestServer
  stateDir: string
  storageDir: string
  /** Everything that the program printed so far. */
  printed: string[]
  run(args: readonly string[], options?: CliOptions): Promise<CliResult>
  /** Runs and expects exit code 0. */
  ok(args: readonly string[], options?: CliOptions): Promise<CliResult>
  sql(database: string, text: string): Promise<Record<string, unknown>[]>
  /** Paths below the storage's folder, sorted. */
  objects(): string[]
}

const shop = `
  CREATE TABLE customers (id integer PRIMARY KEY, name text NOT NULL, settings jsonb);
  CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id integer REFERENCES customers, amount numeric, note text, scan bytea);
  CREATE TABLE empty_one (id integer);
  CREATE VIEW totals AS SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id;
  INSERT INTO customers SELECT i, 'Customer ' || md5(i::text), jsonb_build_object('n', i) FROM generate_series(1, 500) i;
  INSERT INTO orders (customer_id, amount, note, scan) SELECT 1 + i % 500, i / 7.0, repeat(md5(i::text), 3), decode(md5(i::text), 'hex') FROM generate_series(1, 4000) i;
  SELECT lo_from_bytea(4711, decode(repeat('c0ffee', 5000), 'hex'));`

export const createWorld = async (t: Teardown, options: ServerOptions & { encrypt?: boolean } = {}): Promise<World> => {
  const server = await startPostgres(options)
  t.teardown(() => server.stop())
  const stateDir = tempDir(t, 'state')
  const storageDir = join(tempDir(t, 'storage'), 'backups')
  const printed: string[] = []
  const env = { BACKUPD_STATE_DIR: stateDir, BACKUPD_DATABASE_URL: server.url('catalog'), BACKUPD_SOURCE_URL: server.url('shop') }
  const world: World = {
    server, stateDir, storageDir, printed,
    run: async (args, runOptions = {}) => {
      const result = await runCli(args, { ...runOptions, env: { ...env, ...runOptions.env } })
      printed.push(result.stdout, result.stderr)
      return result
    },
    ok: async (args, runOptions) => {
      const result = await world.run(args, runOptions)
      if (result.code !== 0) throw new Error(`backupd ${args.join(' ')} ended with ${result.code}\n${result.stdout}\n${result.stderr}`)
      return result
    },
    sql: async (database, text) => {
      const sql = connectTo(server.url(database))
      try {
        return [...(await sql.unsafe(text))] as Record<string, unknown>[]
      } finally {
        await sql.end()
      }
    },
    objects: () =>
      existsSync(storageDir)
        ? readdirSync(storageDir, { recursive: true, encoding: 'utf8' }).filter((name) => statSync(join(storageDir, name)).isFile()).sort()
        : [],
  }
  await world.sql('postgres', 'CREATE DATABASE catalog')
  await world.sql('postgres', 'CREATE DATABASE shop')
  await world.sql('shop', shop)
  if (options.encrypt !== false) await world.ok(['key', 'generate', '--name', 'test'])
  await world.ok(['storage', 'add', 'disk', '--type', 'local', '--set', `base_path=${storageDir}`])
  return world
}

/** SHA-256 of a file, hex. */
export const fileHash = async (path: string): Promise<string> => {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}

/** The manifest of a backup as it lies in the storage. */
export const storedManifest = (world: World, backupId: string): { parts: { key: string; sha256: string; stored_size: number; plain_size: number; frames: number }[]; recipients: string[] } =>
  JSON.parse(readFileSync(join(world.storageDir, backupId, 'manifest.json'), 'utf8')) as ReturnType<typeof storedManifest>
