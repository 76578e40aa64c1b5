import { randomBytes, randomUUID } from 'node:crypto'
import { closeSync, constants, fchownSync, fstatSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { chown, link, lstat, open, readFile, readdir, readlink, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupdError, messageOf } from '../errors.js'
import { makeFolders } from '../folders.js'
import { Secret } from '../secret.js'

/** The embedded server's files under the state directory. */
export interface EmbeddedFiles {
  /** `<state>/catalog`, which belongs to whom the state directory belongs to. */
  home: string
  data: string
  /** The folder of the Unix socket. */
  run: string
  password: string
  log: string
  /** Owner of `home`; undefined unless we are root and may give files away. */
  keeper: UserId | undefined
  /** The user that the server runs as; undefined means as ourselves. */
  server: UserId | undefined
}

export interface UserId {
  uid: number
  gid: number
}

const missing = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOENT'

const ownerOf = async (path: string): Promise<UserId | undefined> => {
  const found = await stat(path).catch((error: unknown) => {
    if (missing(error)) return undefined
    throw error
  })
  return found === undefined || found.uid === 0 ? undefined : { uid: found.uid, gid: found.gid }
}

const userNamed = async (names: readonly string[]): Promise<UserId | undefined> => {
  const lines = (await readFile('/etc/passwd', 'utf8').catch(() => '')).split('\n').map((line) => line.split(':'))
  for (const name of names) {
    const [, , uid, gid] = lines.find(([first]) => first === name) ?? []
    if (uid !== undefined && gid !== undefined && uid !== '0') return { uid: Number(uid), gid: Number(gid) }
  }
  return undefined
}

// PostgreSQL refuses to run as root. Whoever has the data already goes on having it; else the owner of the state directory, so that
// root's command and the daemon of that user share one catalog.
const serverUser = async (data: string, keeper: UserId | undefined): Promise<UserId> => {
  const user = (await ownerOf(data)) ?? keeper ?? (await userNamed(['postgres', 'backupd', 'nobody']))
  if (user !== undefined) return user
  throw new BackupdError('catalog.embedded_user', 'the embedded catalog cannot run as root, and there is no other user for it', {
    kind: 'configuration', hint: 'Create a system user named backupd, or set BACKUPD_DATABASE_URL.',
  })
}

const makeFolder = async (path: string, owner: UserId | undefined): Promise<void> => {
  const made = await makeFolders(path)
  if (made !== undefined && owner !== undefined) await chown(path, owner.uid, owner.gid)
}

/** Makes the folders, private and with the right owners. Fails with `catalog.state_dir` (exit code 4). */
export const prepareFiles = async (stateDir: string): Promise<EmbeddedFiles> => {
  const home = join(stateDir, 'catalog')
  try {
    const root = process.getuid?.() === 0
    await makeFolders(stateDir)
    const keeper = root ? await ownerOf(stateDir) : undefined
    await makeFolder(home, keeper)
    const files = { home, data: join(home, 'pgdata'), run: join(home, 'run'), password: join(home, 'password'), log: join(home, 'postgres.log') }
    const server = root ? await serverUser(files.data, keeper) : undefined
    await makeFolder(files.run, server)
    return { ...files, keeper, server }
  } catch (error) {
    if (error instanceof BackupdError) throw error
    throw new BackupdError('catalog.state_dir', `the state directory ${stateDir} cannot be used: ${messageOf(error)}`, {
      kind: 'configuration', cause: error,
      hint: 'Run as the user that owns it, or name another one in BACKUPD_STATE_DIR.',
    })
  }
}

/** The password of the catalog's role; made once, readable for the owner of the state directory only. */
export const passwordOf = async ({ home, password, keeper }: EmbeddedFiles): Promise<Secret> => {
  const existing = await readFile(password, 'utf8').catch((error: unknown) => {
    if (missing(error)) return undefined
    throw error
  })
  if (existing !== undefined && existing !== '') return new Secret(existing)
  const fresh = join(home, `password.${randomUUID()}`)
  const file = await open(fresh, 'wx', 0o600)
  try {
    if (keeper !== undefined) await file.chown(keeper.uid, keeper.gid)
    await file.writeFile(randomBytes(24).toString('base64url'))
    await file.sync()
  } finally {
    await file.close()
  }
  // Of several processes that are here at once, the first one's file stays; so all read it again.
  await link(fresh, password).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  })
  await rm(fresh)
  return new Secret(await readFile(password, 'utf8'))
}

/** A file that one call of a program may read as `path` does, though its user could not open it by name. */
export const withPrivateCopy = async <T>(files: EmbeddedFiles, text: string, work: (fd: number, path: string) => Promise<T>): Promise<T> => {
  const path = join(files.home, `copy.${randomUUID()}`)
  const fd = openSync(path, 'wx+', 0o600)
  try {
    if (files.server !== undefined) fchownSync(fd, files.server.uid, files.server.gid)
    writeSync(fd, text)
    return await work(fd, path)
  } finally {
    closeSync(fd)
    await rm(path, { force: true })
  }
}

const logLimit = 4 * 1024 * 1024

/** The server's log, open for appending. Appending, so that it may be cut short under the server's hands. */
export const openLog = ({ log, keeper }: EmbeddedFiles): number => {
  const fd = openSync(log, constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | constants.O_NOFOLLOW, 0o600)
  if (keeper !== undefined) fchownSync(fd, keeper.uid, keeper.gid)
  return fd
}

/** Empties the log once it is above 4 MiB. */
export const boundLog = (files: EmbeddedFiles): void => {
  const fd = openLog(files)
  try {
    if (fstatSync(fd).size > logLimit) ftruncateSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** The last lines of the log, for an error. */
export const logTail = async ({ log }: EmbeddedFiles): Promise<string[]> =>
  (await readFile(log, 'utf8').catch(() => '')).trimEnd().split('\n').slice(-8)

/** Whether a process runs; one that has ended and that nobody has asked about yet does not. */
export const isAlive = async (pid: number): Promise<boolean> => {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false
  }
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  // The state follows the program's name, which may hold anything and is in parentheses.
  return !/^Z/.test(stat.slice(stat.lastIndexOf(') ') + 2))
}

/** The server's process, when one runs on this data directory; a number left behind by a dead one is not. */
export const serverPid = async ({ data }: EmbeddedFiles): Promise<number | undefined> => {
  const text = await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => '')
  const pid = Number(text.split('\n')[0])
  if (!Number.isInteger(pid) || pid <= 1) return undefined
  if (!(await isAlive(pid))) return undefined
  if (process.platform !== 'linux') return pid
  // After a restart of the machine or container the number may be another program's: the server's working directory is its data.
  const [cwd, folder] = await Promise.all([readlink(`/proc/${pid}/cwd`).catch(() => undefined), lstat(data)])
  if (cwd === undefined) return undefined
  const there = await stat(`/proc/${pid}/cwd`).catch(() => undefined)
  return there?.ino === folder.ino && there.dev === folder.dev ? pid : undefined
}

/**
 * Takes a `postmaster.pid` out of the way whose number belongs to another live program now; PostgreSQL itself would take that for
 * a running server. One whose process is dead it deals with by itself.
 */
export const dropStalePid = async (files: EmbeddedFiles): Promise<void> => {
  const path = join(files.data, 'postmaster.pid')
  const before = await readFile(path, 'utf8').catch(() => '')
  if (before === '' || (await serverPid(files)) !== undefined) return
  const aside = `${path}.${randomUUID()}`
  const moved = await rename(path, aside).then(() => true, () => false)
  if (!moved) return
  // Another process may have started a server in between: then it is its file, and goes back.
  if ((await readFile(aside, 'utf8')) === before) await rm(aside)
  else await rename(aside, path)
}

/** Removes what interrupted initialisations left, when they are old enough not to be running. */
export const sweepLeftovers = async ({ home }: EmbeddedFiles): Promise<void> => {
  for (const name of await readdir(home)) {
    if (!/^(new|copy|password)\.[0-9a-f-]{36}$/.test(name)) continue
    const path = join(home, name)
    const found = await stat(path).catch(() => undefined)
    if (found !== undefined && Date.now() - found.ctimeMs > 600_000) await rm(path, { recursive: true, force: true })
  }
}
