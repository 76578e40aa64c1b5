import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readlinkSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import { makePrivateFolder, removeAbandonedFolders } from '../../src/postgres/private-folder.js'
import { tempDir } from '../support/temp.js'

const namespace = /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? ''
// Of a process that has ended and was waited for.
const { pid: dead } = spawnSync(process.execPath, ['-e', '0'])

const folder = (within: string, name: string, age = 0): string => {
  const path = join(within, name)
  mkdirSync(path, { mode: 0o700 })
  writeFileSync(join(path, 'archive'), 'rows')
  const time = new Date(Date.now() - age)
  utimesSync(path, time, time)
  return path
}

t.test('a private folder is for its user only, and stays while its process lives', async (t) => {
  const within = tempDir(t)
  const own = await makePrivateFolder('restore', within)
  t.equal(statSync(own).mode & 0o777, 0o700)
  t.match(basename(own), new RegExp(`^backupd-restore-${namespace}-${process.pid}-`))
  t.same(await removeAbandonedFolders(within), [])
  t.ok(existsSync(own))
})

t.test('those of killed processes are removed, and nothing else', async (t) => {
  const within = tempDir(t)
  const day = 86_400_000
  const gone = [folder(within, `backupd-restore-${namespace}-${dead}-aaaaaa`), folder(within, `backupd-pass-${namespace}-${dead}-bbbbbb`), folder(within, 'backupd-restore-1-1-cccccc', 8 * day)]
  const kept = [
    folder(within, 'backupd-restore-1-1-dddddd', day),
    folder(within, `backupd-other-${namespace}-${dead}-eeeeee`),
    folder(within, `restore-${namespace}-${dead}-ffffff`),
  ]
  t.same((await removeAbandonedFolders(within)).sort(), gone.sort(), 'of a dead process, or old and of a namespace that is not ours')
  for (const path of kept) t.ok(existsSync(join(path, 'archive')), basename(path))
  t.same(await removeAbandonedFolders(join(within, 'missing')), [])
})
