import { mkdtemp, readdir, readlink, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** `pass`: a password file. `restore`: what pg_restore reads as a file, such as a copy of the archive for several jobs. */
type Kind = 'pass' | 'restore'

/** Process numbers mean something only within one namespace; containers may share the folder. Its number, 0 where there are none. */
const namespaceNumber = async (): Promise<string> => /\d+/.exec(await readlink('/proc/self/ns/pid').catch(() => ''))?.[0] ?? '0'

/** A new folder that only this user can enter, with a name that tells who made it. The caller removes it. */
export const makePrivateFolder = async (kind: Kind, within: string = tmpdir()): Promise<string> =>
  // mkdtemp makes it with mode 0700.
  mkdtemp(join(within, `backupd-${kind}-${await namespaceNumber()}-${process.pid}-`))

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

// Of a process that cannot be asked for, in another container or before a restart of ours, nobody waits that long. Milliseconds.
const OLD = 7 * 24 * 3_600_000

/** Removes the private folders in `within` of processes that were killed; never fails. Gives those that it removed. */
export const removeAbandonedFolders = async (within: string = tmpdir()): Promise<string[]> => {
  const removed: string[] = []
  const here = await namespaceNumber()
  for (const name of await readdir(within).catch(() => [])) {
    const [, namespace, pid] = /^backupd-(?:pass|restore)-(\d+)-(\d+)-/.exec(name) ?? []
    if (pid === undefined || (namespace === here && isAlive(Number(pid)))) continue
    const path = join(within, name)
    const found = await stat(path).catch(() => undefined)
    if (found === undefined || found.uid !== process.getuid?.()) continue
    if (namespace !== here && Date.now() - found.mtimeMs < OLD) continue
    if (await rm(path, { recursive: true, force: true }).then(() => true, () => false)) removed.push(path)
  }
  return removed
}
