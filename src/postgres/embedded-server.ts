import { spawn, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { chown, mkdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupdError } from '../errors.js'
import { redact, type Secret } from '../secret.js'
import { serverBinaries } from './embedded-binaries.js'
import { openLog, withPrivateCopy, type EmbeddedFiles } from './embedded-files.js'

/** The newest major version that Debian 12's pg_dump can read. */
export const embeddedMajor = '15'
export const embeddedRole = 'backupd'

const settings = {
  listen_addresses: '',
  unix_socket_permissions: '0700',
  max_connections: '200',
  shared_buffers: '32MB',
  fsync: 'on',
  wal_level: 'minimal',
  max_wal_senders: '0',
  max_wal_size: '256MB',
  // Files instead of POSIX shared memory, which logind removes when the user of a session logs out.
  dynamic_shared_memory_type: 'mmap',
  max_parallel_workers_per_gather: '0',
  jit: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_checkpoints: 'off',
  max_logical_replication_workers: '0',
} as const

const environment = { PATH: process.env['PATH'] ?? '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' }

// On Linux the server gets its folders as open descriptors: it may then live under folders that its user cannot enter (a state
// directory that only root may read), and its socket's path cannot be too long.
const linux = process.platform === 'linux'
const given = (fd: number, path: string): string => (linux ? `/proc/self/fd/${fd}` : path)

const initdb = (files: EmbeddedFiles, native: string, folder: string, password: Secret): Promise<void> =>
  withPrivateCopy(files, password.reveal(), async (pwFd, pwPath) => {
    const fd = openSync(folder, 'r')
    try {
      const child = spawn(
        join(native, 'bin/initdb'),
        ['-D', given(3, folder), '-U', embeddedRole, '--pwfile', given(4, pwPath), '-A', 'scram-sha-256', '-E', 'UTF8', '--locale', 'C'],
        { cwd: '/', env: environment, stdio: ['ignore', 'pipe', 'pipe', fd, pwFd], ...files.server },
      )
      const said: string[] = []
      for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (text: string) => said.push(text))
      const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
      if (code === 0) return
      throw new BackupdError('catalog.embedded_start', `the embedded catalog could not be created in ${files.home}`, {
        kind: 'configuration', hint: 'Free space, or correct what initdb says.', details: { initdb: redact(said.join('')).trim().split('\n').slice(-8) },
      })
    } finally {
      closeSync(fd)
    }
  })

/** Makes the data directory when there is none; whole or not at all, also when several processes do so at once. */
const createData = async (files: EmbeddedFiles, native: string, password: Secret): Promise<void> => {
  const fresh = join(files.home, `new.${randomUUID()}`)
  await mkdir(fresh, { mode: 0o700 })
  try {
    if (files.server !== undefined) await chown(fresh, files.server.uid, files.server.gid)
    await initdb(files, native, fresh, password)
    await rename(fresh, files.data).catch((error: unknown) => {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error
    })
  } finally {
    await rm(fresh, { recursive: true, force: true })
  }
}

/** Whether there is a data directory. Fails with `catalog.embedded_version` when it is another major version's. */
export const dataThere = async (files: EmbeddedFiles): Promise<boolean> => {
  const version = (await readFile(join(files.data, 'PG_VERSION'), 'utf8').catch(() => undefined))?.trim()
  if (version === undefined || version === embeddedMajor) return version !== undefined
  throw new BackupdError(
    'catalog.embedded_version',
    `the embedded catalog in ${files.data} is of PostgreSQL ${version}, and this backupd brings PostgreSQL ${embeddedMajor}`,
    {
      kind: 'configuration',
      hint: `Start PostgreSQL ${version} on that directory, dump its database "backupd" with pg_dump -Fc, move the directory away, ` +
        'run `backupd migrate`, and restore the rows with pg_restore --data-only; or set BACKUPD_DATABASE_URL to that server.',
      details: { found: version, expected: embeddedMajor },
    },
  )
}

/** Starts the server, detached: it outlives this process, and others use it too. It may still be starting when this returns. */
export const launchServer = async (files: EmbeddedFiles, password: Secret): Promise<ChildProcess> => {
  const native = await serverBinaries(files)
  if (!(await dataThere(files))) await createData(files, native, password)
  const fds = [openLog(files), openSync(files.data, 'r'), openSync(files.run, 'r')] as const
  try {
    const child = spawn(
      join(native, 'bin/postgres'),
      ['-D', given(3, files.data), '-k', given(4, files.run), ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
      { cwd: '/', env: environment, detached: true, stdio: ['ignore', fds[0], fds[0], fds[1], fds[2]], ...files.server },
    )
    await new Promise<void>((resolve, reject) => child.once('error', reject).once('spawn', resolve))
    child.unref()
    return child
  } finally {
    for (const fd of fds) closeSync(fd)
  }
}
