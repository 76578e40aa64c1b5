import { appendFileSync, closeSync, openSync, readFileSync, readSync, renameSync, rmSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createWorld, storedManifest, type ShownExecution, type World } from './world.js'

const flipByte = (path: string, at: number): void => {
  const file = openSync(path, 'r+')
  const byte = Buffer.alloc(1)
  readSync(file, byte, 0, 1, at)
  byte.writeUInt8(byte.readUInt8() ^ 0x10)
  writeSync(file, byte, 0, 1, at)
  closeSync(file)
}

const partNamed = (world: World, backupId: string, name: string): string => {
  const key = storedManifest(world, backupId).parts.find((part) => part.key.includes(name))?.key ?? ''
  return join(world.storageDir, key)
}

interface Shown { error: { code: string; message: string; details: { damage: { part: string; reason: string }[] } } }

t.test('damage of every kind is found, named and recorded', async (t) => {
  const world = await createWorld(t)
  await world.ok(['schedule', 'add', 'plain', '--cron', '@daily', '--storage', 'disk', '--compression', 'gzip', '--no-encrypt', '--no-verify'])
  await world.ok(['schedule', 'add', 'sealed', '--cron', '@daily', '--storage', 'disk', '--compression', 'zstd', '--no-verify'])
  for (const schedule of ['plain', 'sealed']) {
    const { backup_id: id } = (await world.ok(['run-now', schedule, '--json'])).json<ShownExecution>()
    const database = partNamed(world, id, 'database')
    const manifest = join(world.storageDir, id, 'manifest.json')
    const original = { database: readFileSync(database), manifest: readFileSync(manifest) }
    const cases: { what: string; part: string; damage: () => void; mend: () => void }[] = [
      { what: 'a flipped byte', part: database, damage: () => flipByte(database, Math.floor(statSync(database).size / 2)), mend: () => writeFileSync(database, original.database) },
      { what: 'a truncated part', part: database, damage: () => truncateSync(database, original.database.length - 1), mend: () => writeFileSync(database, original.database) },
      { what: 'a longer part', part: database, damage: () => appendFileSync(database, 'x'), mend: () => writeFileSync(database, original.database) },
      { what: 'a missing part', part: database, damage: () => renameSync(database, `${database}.away`), mend: () => renameSync(`${database}.away`, database) },
      { what: 'a changed manifest', part: manifest, damage: () => writeFileSync(manifest, original.manifest.toString().replace('"shop"', '"shap"')), mend: () => writeFileSync(manifest, original.manifest) },
      { what: 'a missing manifest', part: manifest, damage: () => rmSync(manifest), mend: () => writeFileSync(manifest, original.manifest) },
    ]
    for (const { what, part, damage, mend } of cases) {
      damage()
      for (const level of ['checksum', 'archive']) {
        const result = await world.run(['verify', id, '--level', level, '--json'])
        t.equal(result.code, 5, `${schedule}: ${what}, ${level}`)
        const { error } = result.json<Shown>()
        t.equal(error.code, 'integrity.corrupted')
        t.ok(error.details.damage.some((one) => part.endsWith(one.part)), `${what} names the part`)
        t.match(error.message, part.slice(world.storageDir.length + 1), `${what}: so does what is printed`)
        t.match((await world.ok(['show', id, '--json'])).json<ShownExecution>(), { status: 'corrupted', verification_status: 'corrupted' })
      }
      const refused = await world.run(['restore', id, '--into', 'never', '--json'])
      t.equal(refused.code, 5, `${schedule}: ${what} is not restored`)
      t.match(refused.json<Shown>().error.message, part.slice(world.storageDir.length + 1))
      t.same(await world.sql('postgres', "SELECT 1 FROM pg_database WHERE datname = 'never'"), [], 'and the new database is gone')
      mend()
    }
    await world.ok(['verify', id, '--level', 'archive'])
    t.match((await world.ok(['show', id, '--json'])).json<ShownExecution>(), { status: 'completed', verification_status: 'verified', error_message: null }, 'what was mended is good again')
  }
})

t.test('a key that is not at hand, or is another one, is said before anything happens', async (t) => {
  const world = await createWorld(t)
  await world.ok(['schedule', 'add', 'sealed', '--cron', '@daily', '--storage', 'disk', '--compression', 'zstd'])
  const { backup_id: id } = (await world.ok(['run-now', 'sealed', '--json'])).json<ShownExecution>()
  const other = join(world.stateDir, 'other.txt')
  await world.ok(['key', 'generate', '--name', 'other', '--out', other])
  for (const env of [{ BACKUPD_IDENTITY_FILE: other }]) {
    const deep = await world.run(['verify', id, '--level', 'archive', '--json'], { env })
    t.equal(deep.code, 4)
    t.match(deep.json(), { error: { code: 'key.identity_missing' } })
    const restored = await world.run(['restore', id, '--into', 'never', '--json'], { env })
    t.equal(restored.code, 4)
    t.same(await world.sql('postgres', "SELECT 1 FROM pg_database WHERE datname = 'never'"), [])
    t.equal((await world.run(['verify', id, '--level', 'checksum'], { env })).code, 0, 'digests need no key')
  }
  const gone = await world.run(['restore', id, '--into', 'never'], { env: { BACKUPD_IDENTITY_FILE: join(world.stateDir, 'missing.txt') } })
  t.equal(gone.code, 4, 'a key file that is not there is a matter of configuration')
})
