import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { startPostgres } from '../support/postgres-server.js'
import { connectTo } from '../support/sql.js'
import { tempDir } from '../support/temp.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const readme = readFileSync(join(root, 'README.md'), 'utf8')

/** The commands of the `console` blocks, in order, each with the output that follows it. */
const session = [...readme.matchAll(/^```console\n([\s\S]*?)^```$/gm)].flatMap(([, block = '']) =>
  block.split(/^\$ /m).slice(1).map((step) => ({ command: step.slice(0, step.indexOf('\n')), output: step.slice(step.indexOf('\n') + 1) })),
)

// What is different in every run: names, digests, times, sizes, counts; and the width of columns with it.
const normal = (text: string): string =>
  text
    .replace(/\d{8}T\d{6}Z-nightly-[a-z2-7]{6}/g, 'BACKUP')
    .replace(/\b[0-9a-f]{64}\b/g, 'DIGEST')
    .replace(/age1[a-z0-9]{58}/g, 'RECIPIENT')
    .replace(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?/g, 'TIME')
    .replace(/\(PostgreSQL [^()]*(\([^()]*\))?\)/g, '(PostgreSQL)')
    .replace(/\d+(\.\d+)? ([KMGT]i)?B\b/g, 'SIZE')
    .replace(/\d+(\.\d+)?/g, 'N')
    .replace(/ +/g, ' ')
    .trim()

t.test('the tour of the README is true, command by command', async (t) => {
  t.ok(session.length >= 9, 'there is a tour')
  const dir = tempDir(t, 'readme')
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const sql = connectTo(server.url())
  await sql.unsafe(`CREATE ROLE shop SUPERUSER LOGIN PASSWORD 'of-the-readme'`)
  await sql`CREATE DATABASE shop OWNER shop`
  await sql.end()
  const shop = connectTo(server.url('shop', 'shop', 'of-the-readme'))
  await shop.unsafe(`
    CREATE TABLE customers (id int PRIMARY KEY, name text); CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, note text);
    INSERT INTO customers SELECT i, 'customer ' || i FROM generate_series(1, 1000) i;
    INSERT INTO orders SELECT i, i % 1000 + 1, md5(i::text) FROM generate_series(1, 30000) i;`)
  await shop.end()

  mkdirSync(join(dir, 'bin'))
  symlinkSync(join(root, 'dist/main.js'), join(dir, 'bin/backupd'))
  const script = session.map(({ command }, at) => `echo '==> ${at}'\n${command.replaceAll('/srv/backups', join(dir, 'backups'))}`).join('\n')
  const { status, stdout, stderr } = spawnSync('bash', ['-e', '-c', script], {
    cwd: dir,
    encoding: 'utf8',
    env: {
      PATH: `${join(dir, 'bin')}:${process.env['PATH']}`, HOME: dir, BACKUPD_STATE_DIR: join(dir, 'state'), BACKUPD_SOURCE_URL: server.url('shop', 'shop', 'of-the-readme'),
    },
  })
  t.equal(status, 0, stderr)
  t.notMatch(stdout + stderr, 'of-the-readme', 'no password in any output')
  const outputs = stdout.split(/^==> \d+\n/m).slice(1)
  for (const [at, { command, output }] of session.entries()) {
    const seen = (outputs[at] ?? '')
      .replaceAll(`${server.host}:${server.port}`, 'localhost:5432')
      .replaceAll(join(dir, 'backups'), '/srv/backups')
      .replaceAll(dir, '/home/ada')
    t.equal(normal(seen), normal(output), command)
  }
})
