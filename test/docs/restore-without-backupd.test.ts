import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { databaseContent } from '../support/content.js'
import { startPostgres, type TestServer } from '../support/postgres-server.js'
import { connectTo } from '../support/sql.js'
import { tempDir } from '../support/temp.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const page = readFileSync(join(root, 'docs/restore-without-backupd.md'), 'utf8')
const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block ?? '')

const sample = `
  CREATE ROLE shop LOGIN PASSWORD 'of no use elsewhere'; CREATE ROLE "Shop Reader";
  CREATE SCHEMA "odd ""names""" AUTHORIZATION shop;
  CREATE TYPE state AS ENUM ('open', 'it''s paid');
  CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
  CREATE TABLE orders (id bigserial PRIMARY KEY, customer bigint NOT NULL REFERENCES customers, state state, body jsonb, raw bytea);
  CREATE TABLE "odd ""names"""."it's *" (id int PRIMARY KEY, "a b" text);
  CREATE VIEW paid AS SELECT * FROM orders WHERE state = 'it''s paid';
  INSERT INTO customers (name) SELECT 'customer ' || i FROM generate_series(1, 500) i;
  INSERT INTO orders (customer, state, body, raw) SELECT i % 500 + 1, 'open', jsonb_build_object('n', i), decode(md5(i::text), 'hex') FROM generate_series(1, 60000) i;
  INSERT INTO "odd ""names"""."it's *" VALUES (1, NULL), (2, E'\\\\.');
  ALTER TABLE orders OWNER TO shop; GRANT SELECT ON orders TO "Shop Reader";
  SELECT lo_from_bytea(0, decode(repeat('00ff', 100000), 'hex'));`

interface Target {
  server: TestServer
  backup: string
  key: string
  database: string
}

// One shell for all blocks, as for somebody who follows the page; it stops at the first command that fails.
const follow = (commands: readonly string[], { server, backup, key, database }: Target) => {
  const script = commands.map((block, at) => `echo '==> block ${at}'\n${block}`).join('\n')
  const { status, stdout, stderr } = spawnSync('bash', ['-e', '-c', script], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: {
      PATH: process.env['PATH'], HOME: '/nonexistent', LC_ALL: 'C.UTF-8',
      PGHOST: server.host, PGPORT: String(server.port), PGUSER: server.user, PGPASSWORD: server.password,
      BACKUP: backup, KEY: key, TARGET: database,
    },
  })
  const outputs = stdout.split(/^==> block \d+\n/m).slice(1)
  return { status, stderr, outputs }
}

t.test('the page restores what the program has backed up', async (t) => {
  t.ok(blocks.length >= 10, 'the page has commands')
  const dir = tempDir(t, 'docs')
  const [source, target] = await Promise.all([startPostgres(), startPostgres()])
  t.teardown(() => Promise.all([source.stop(), target.stop()]))
  const sql = connectTo(source.url())
  await sql`CREATE DATABASE shop`
  await sql.end()
  const shop = connectTo(source.url('shop'))
  await shop.unsafe(sample)
  await shop.end()
  const expected = await databaseContent(source.url('shop'))

  const key = join(dir, 'key.txt')
  const env = { PATH: process.env['PATH'], HOME: dir, BACKUPD_STATE_DIR: join(dir, 'state'), BACKUPD_SOURCE_URL: source.url('shop'), BACKUPD_IDENTITY_FILE: key }
  const backupd = (...args: string[]): string => execFileSync(process.execPath, [join(root, 'dist/main.js'), ...args], { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
  backupd('key', 'generate', '--out', key)
  backupd('storage', 'add', 'disk', '--type', 'local', '--set', `base_path=${join(dir, 'backups')}`)
  const forms = [
    { name: 'zstd', options: ['--compression', 'zstd'], files: 'database.dump.zst.age' },
    { name: 'gzip', options: ['--compression', 'gzip'], files: 'database.dump.gz.age' },
    { name: 'lz4', options: ['--compression', 'lz4', '--no-encrypt'], files: 'database.dump.lz4' },
    { name: 'none', options: ['--compression', 'none', '--no-encrypt'], files: 'database.dump' },
  ]

  for (const { name, options, files } of forms) {
    await t.test(`compression ${name}, ${options.includes('--no-encrypt') ? 'not encrypted' : 'encrypted'}`, async (t) => {
      backupd('schedule', 'add', name, '--cron', '@daily', '--storage', 'disk', ...options)
      const { backup_id: id } = JSON.parse(backupd('run-now', name, '--json')) as { backup_id: string }
      const backup = join(dir, 'backups', id)
      t.ok(readdirSync(backup).includes(files), files)
      const database = `restored_${name}`
      const { status, stderr, outputs } = follow(blocks, { server: target, backup, key, database })
      t.equal(status, 0, stderr)
      t.equal(outputs.length, blocks.length, 'every block ran')
      const output = (part: string): string | undefined => outputs[blocks.findIndex((block) => block.includes(part))]
      t.match(output('$BACKUP'), /^shop on PostgreSQL 15\.\d+.*, pg_dump \d+/)
      t.match(output('jq -r \'.parts[] | "\\(.sha256)'), /^\S+database\.dump\S*: OK$/m)
      t.match(output('node -e'), /^\S+database\.dump\S*: OK$/m)
      t.match(output('pg_restore --list &&'), /TABLE DATA public orders shop/)
      t.match(output('pg_restore --list &&'), /^60000\tpublic\.orders$/m)
      t.equal(output('having count(*)'), '', 'no table differs')
      t.match(output('--schema-only --file=-'), /CREATE TABLE public\.orders/)
      t.match(output('../*/manifest.json'), new RegExp(`\\t${id}\\tshop\\tfull$`, 'm'))
      t.strictSame(await databaseContent(target.url(database)), expected, 'the content is the same')
      const part = await databaseContent(target.url(`${database}_part`))
      t.strictSame(part.find(({ table }) => table === 'public.orders'), expected.find(({ table }) => table === 'public.orders'), 'a part of it too')
      const owners = connectTo(target.url(database))
      t.strictSame([...(await owners`SELECT relowner::regrole::text AS owner FROM pg_class WHERE relname = 'orders'`)], [{ owner: 'shop' }])
      await owners.end()
    })
  }

  await t.test('damage is noticed, by the digest and without it', async (t) => {
    const [id = ''] = readdirSync(join(dir, 'backups')).filter((name) => name.includes('-zstd-'))
    const backup = join(dir, 'damaged', id)
    cpSync(join(dir, 'backups', id), backup, { recursive: true })
    const file = join(backup, 'database.dump.zst.age')
    const bytes = readFileSync(file)
    bytes[bytes.length - 100] = (bytes[bytes.length - 100] ?? 0) ^ 1
    writeFileSync(file, bytes)
    const checked = follow(blocks, { server: target, backup, key, database: 'damaged' })
    t.not(checked.status, 0)
    t.match(checked.outputs.at(-1), /database\.dump\.zst\.age: FAILED/)
    const unchecked = follow(blocks.filter((block) => !block.includes('sha256sum --check')), { server: target, backup, key, database: 'damaged' })
    t.not(unchecked.status, 0)
    t.match(unchecked.stderr, /age: error/)
  })
})
