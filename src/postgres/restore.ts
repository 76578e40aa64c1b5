import { createWriteStream } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import type { ByteSource } from '../storage/storage.js'
import { chooseEntries } from './choice.js'
import type { Connection } from './connection.js'
import { conninfo, type Section } from './dump.js'
import { toolEnvironment } from './environment.js'
import { makePrivateFolder } from './private-folder.js'
import { feedTool, toolText, type Tool } from './process.js'
import type { DanglingKey } from './selection.js'
import { readContents } from './toc.js'
import type { Tools } from './tools.js'

/** Lines of `pg_restore --list` for an archive that is read to its end; proves that pg_restore understands it. Fails with `restore.archive`. */
export const listArchive = async (source: ByteSource, { tools, signal }: { tools: Tools; signal: AbortSignal }): Promise<string[]> => {
  const output: Buffer[] = []
  await feedTool(
    { name: 'pg_restore', path: tools.pg_restore, args: ['--list'], env: { LC_ALL: 'C' }, failure: 'restore.archive', signal },
    { source, onOutput: (chunk) => output.push(chunk) },
  )
  return Buffer.concat(output).toString('utf8').split('\n').filter((line) => /^\d+;/.test(line))
}

export interface RestoreOptions {
  /** The target database, which must be there. */
  connection: Connection
  tools: Tools
  /** An archive of `dumpDatabase`. */
  source: ByteSource
  signal: AbortSignal
  /** Where a copy of the plain archive is kept while several jobs read it; default the system's folder for temporary files. */
  spoolDir?: string
  /** Default 1: straight from the stream, without a copy. */
  jobs?: number
  /** Only these, with their rows, indexes, constraints, owned sequences and partitions. */
  tables?: readonly string[]
  /** With `tables`: also schemas, types, functions and extensions; default true, false for a database that has them. */
  prerequisites?: boolean
  /** Into a database that has these tables: they are dropped and made again in one transaction, by one job. */
  inPlace?: boolean
  schemaOnly?: boolean
  sections?: readonly Section[]
  /** Do not give objects their owners; they belong to the role of the connection. */
  noOwner?: boolean
  noPrivileges?: boolean
  noTablespaces?: boolean
  /** Of the backup's selection. */
  danglingKeys?: readonly DanglingKey[]
  /** Each line that pg_restore writes to stderr. */
  onLine?: (line: string) => void
}

export interface RestoreReport {
  /** With `tables`: those whose rows were restored; else undefined. */
  filled: { schema: string; name: string }[] | undefined
  /** What was left out, for people. */
  warnings: string[]
}

const spool = async (source: ByteSource, file: string, signal: AbortSignal): Promise<void> => {
  try {
    await pipeline(Readable.from(source, { objectMode: false, highWaterMark: 4 * 1024 * 1024 }), createWriteStream(file, { mode: 0o600, flags: 'wx' }), { signal })
  } catch (error) {
    throwIfAborted(signal)
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
    throw new BackupdError('restore.no_space', `there is no room for a copy of the archive in ${file}: ${messageOf(error)}`, {
      hint: 'Restore with one job, which needs no copy, or make room.', cause: error,
    })
  }
}

/**
 * Restores an archive into a database with pg_restore --exit-on-error. One job reads the stream as it comes; several need the archive
 * as a file, which is private and removed in any case. The source is read to its end even where pg_restore needs less of it, so that
 * its last checks run. Fails with the source's error, else `restore.failed`.
 */
export const restoreArchive = async (options: RestoreOptions): Promise<RestoreReport> => {
  const { connection, tools, signal, inPlace = false } = options
  const jobs = inPlace ? 1 : (options.jobs ?? 1)
  const { contents, whole } = await readContents(options.source)
  const dir = await makePrivateFolder('restore', options.spoolDir)
  const environment = await toolEnvironment(connection)
  try {
    const { ids, filled, warnings } = chooseEntries(contents, {
      tables: options.tables, prerequisites: options.prerequisites ?? true, danglingKeys: options.danglingKeys,
    })
    const list = join(dir, 'list')
    if (ids !== undefined) await writeFile(list, ids.map((id) => `${id};\n`).join(''), { mode: 0o600 })
    const args = [
      '--exit-on-error',
      '--no-password',
      `--dbname=${conninfo(connection.database)}`,
      ...(ids === undefined ? [] : [`--use-list=${list}`]),
      ...(inPlace ? ['--clean', '--if-exists', '--single-transaction'] : []),
      ...(options.schemaOnly ? ['--schema-only'] : []),
      ...(options.sections ?? []).map((section) => `--section=${section}`),
      ...(options.noOwner ? ['--no-owner'] : []),
      ...(options.noPrivileges ? ['--no-privileges'] : []),
      ...(options.noTablespaces ? ['--no-tablespaces'] : []),
    ]
    const tool: Tool = { name: 'pg_restore', path: tools.pg_restore, args, env: environment.env, failure: 'restore.failed', signal, onLine: options.onLine }
    if (jobs <= 1) await feedTool(tool, { source: whole })
    else {
      const file = join(dir, 'archive')
      await spool(whole, file, signal)
      await toolText({ ...tool, args: [...args, `--jobs=${jobs}`, file] })
    }
    return { filled, warnings }
  } finally {
    await whole.return().catch(() => undefined)
    await environment.dispose()
    await rm(dir, { recursive: true, force: true })
  }
}
