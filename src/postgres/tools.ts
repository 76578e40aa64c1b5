import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, readdir, realpath } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { BackupdError } from '../errors.js'

const run = promisify(execFile)

/** One installation of PostgreSQL's client programs. */
export interface Tools {
  major: number
  /** As the program says it, such as `15.13`. */
  version: string
  dir: string
  pg_dump: string
  pg_dumpall: string
  pg_restore: string
  psql: string
}

export interface ToolPlaces {
  /** The folder of `BACKUPD_PG_BIN`, looked at first. */
  pgBin?: string | undefined
  /** Where Debian keeps one folder per major version. */
  debianDir?: string
  path?: string
}

const names = ['pg_dump', 'pg_dumpall', 'pg_restore', 'psql'] as const

const executable = (file: string): Promise<boolean> => access(file, constants.X_OK).then(() => true, () => false)

const inspectDir = async (dir: string): Promise<Tools | undefined> => {
  for (const name of names) if (!(await executable(join(dir, name)))) return undefined
  // Debian's wrapper picks a version by its own rules; the folders it picks from are looked at anyway.
  if ((await realpath(join(dir, 'pg_dump'))).endsWith('pg_wrapper')) return undefined
  const { stdout } = await run(join(dir, 'pg_dump'), ['--version'], { env: { PATH: process.env['PATH'] ?? '', LC_ALL: 'C' } }).catch(() => ({ stdout: '' }))
  const match = /\(PostgreSQL\) ((\d+)\S*)/.exec(stdout)
  if (!match) return undefined
  const [pg_dump, pg_dumpall, pg_restore, psql] = names.map((name) => join(dir, name)) as [string, string, string, string]
  return { major: Number(match[2]), version: match[1] ?? '', dir, pg_dump, pg_dumpall, pg_restore, psql }
}

/** Every installation found, in the order of the places: `pgBin`, Debian's folders, PATH. A folder counts when it holds all four programs. */
export const findTools = async (places: ToolPlaces = {}): Promise<Tools[]> => {
  const debian = places.debianDir ?? '/usr/lib/postgresql'
  const versions = await readdir(debian).catch(() => [])
  const dirs = [
    ...(places.pgBin === undefined ? [] : [places.pgBin]),
    ...versions.map((version) => join(debian, version, 'bin')),
    ...(places.path ?? process.env['PATH'] ?? '').split(delimiter).filter((dir) => dir.startsWith('/')),
  ]
  const found = await Promise.all([...new Set(dirs)].map(inspectDir))
  return found.filter((tools) => tools !== undefined)
}

/** The lowest major version that is not below the server's, or `tools.missing` with what to install. */
export const chooseTools = (found: readonly Tools[], serverMajor: number): Tools => {
  const [best] = found.filter(({ major }) => major >= serverMajor).sort((a, b) => a.major - b.major)
  if (best) return best
  const have = [...new Set(found.map(({ version }) => version))].join(', ')
  throw new BackupdError(
    'tools.missing',
    `the server is PostgreSQL ${serverMajor}, and its pg_dump is needed in that version or a newer one; found: ${have === '' ? 'none' : have}`,
    {
      kind: 'configuration',
      hint: `Install postgresql-client-${serverMajor} (from apt.postgresql.org where Debian has no such package), or name the folder of another installation in BACKUPD_PG_BIN.`,
      details: { server_major: serverMajor, found: found.map(({ version, dir }) => ({ version, dir })) },
    },
  )
}

let stdbuf: Promise<string | undefined> | undefined

/** coreutils' stdbuf, when it is there and works: some systems have the program without the library that it loads. */
export const findStdbuf = (): Promise<string | undefined> => {
  stdbuf ??= (async () => {
    for (const dir of (process.env['PATH'] ?? '').split(delimiter)) {
      const file = join(dir, 'stdbuf')
      if (!(await executable(file))) continue
      return run(file, ['-o1M', 'true']).then(() => file, () => undefined)
    }
    return undefined
  })()
  return stdbuf
}
