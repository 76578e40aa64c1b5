import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { chooseTools, findStdbuf, findTools } from '../../src/postgres/tools.js'
import { tempDir } from '../support/temp.js'

// Stands in for versions that this machine does not have: only what --version says matters here.
const install = async (dir: string, version: string, names = ['pg_dump', 'pg_dumpall', 'pg_restore', 'psql']) => {
  await mkdir(dir, { recursive: true })
  for (const name of names) {
    await writeFile(join(dir, name), `#!/bin/sh\necho "${name} (PostgreSQL) ${version}"\n`)
    await chmod(join(dir, name), 0o755)
  }
}

t.test('the real programs of this machine are found', async (t) => {
  const found = await findTools()
  const tools = chooseTools(found, 12)
  t.ok(tools.major >= 12)
  t.match(tools.version, /^\d+\.\d+/)
  t.equal(tools.pg_dump, join(tools.dir, 'pg_dump'))
  t.match(await findStdbuf(), /\/stdbuf$/)
})

t.test('the lowest version that will do is chosen, wherever it is', async (t) => {
  const dir = tempDir(t)
  const debianDir = join(dir, 'debian')
  await install(join(debianDir, '14/bin'), '14.9')
  await install(join(debianDir, '17/bin'), '17.1 (Debian 17.1-1)')
  await install(join(debianDir, '18/bin'), '18.0', ['pg_dump', 'psql'])
  await install(join(dir, 'own'), '16.2')
  await install(join(dir, 'path'), '15beta1')
  await mkdir(join(dir, 'wrapped'))
  await install(join(dir, 'wrapper'), '13.1')
  await writeFile(join(dir, 'pg_wrapper'), '#!/bin/sh\necho "pg_dump (PostgreSQL) 13.1"\n', { mode: 0o755 })
  for (const name of ['pg_dump', 'pg_dumpall', 'pg_restore', 'psql']) await symlink(join(dir, 'pg_wrapper'), join(dir, 'wrapped', name))
  const found = await findTools({ pgBin: join(dir, 'own'), debianDir, path: [join(dir, 'path'), join(dir, 'wrapped'), join(dir, 'nothing')].join(':') })
  t.same(found.map(({ major }) => major), [16, 14, 17, 15])
  t.same([12, 14, 15, 16, 17].map((server) => chooseTools(found, server).major), [14, 14, 15, 16, 17])
  t.throws(() => chooseTools(found, 18), { code: 'tools.missing', kind: 'configuration', message: /PostgreSQL 18.*16\.2, 14\.9, 17\.1, 15beta1/, hint: /postgresql-client-18/ })
  t.throws(() => chooseTools([], 12), { message: /found: none/, hint: /BACKUPD_PG_BIN/ })
  await install(join(dir, 'twin'), '16.9')
  const twins = await findTools({ pgBin: join(dir, 'twin'), debianDir: join(dir, 'nothing'), path: join(dir, 'own') })
  t.equal(chooseTools(twins, 16).version, '16.9')
})
