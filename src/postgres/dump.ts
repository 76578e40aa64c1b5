import type { ByteSource } from '../storage/storage.js'
import type { Connection } from './connection.js'
import { toolEnvironment } from './environment.js'
import { toolOutput, type Tool } from './process.js'
import type { Tools } from './tools.js'

export const sections = ['pre-data', 'data', 'post-data'] as const
export type Section = (typeof sections)[number]

export interface DumpOptions {
  connection: Connection
  tools: Tools
  signal: AbortSignal
  /** Of `holdSnapshot`; without it pg_dump takes its own. */
  snapshot?: string | undefined
  /** Default all three. */
  sections?: readonly Section[]
  /** From `selectionArguments` or `exactly`: further arguments that say which tables. */
  tables?: readonly string[]
  /** Each warning that pg_dump writes, for the record; not called for errors. */
  onWarning?: (text: string) => void
}

const warningsOf = (onWarning: ((text: string) => void) | undefined): Tool['onLine'] =>
  onWarning && ((line) => {
    const match = /^pg_dump(?:all)?: (?:warning|detail|hint): (.*)$/.exec(line)
    if (match?.[1] !== undefined) onWarning(match[1])
  })

async function* withEnvironment(connection: Connection, run: (env: Record<string, string>) => ByteSource): ByteSource & AsyncGenerator<Uint8Array> {
  const environment = await toolEnvironment(connection)
  try {
    yield* run(environment.env)
  } finally {
    await environment.dispose()
  }
}

/**
 * A database as an uncompressed archive of pg_dump (-Fc -Z0), with large objects. Ends only when pg_dump ended well; else fails with
 * `dump.failed`. An archive without the data section is schema only, in sections so that materialised views are refreshed on restore.
 */
export const dumpDatabase = (options: DumpOptions): ByteSource =>
  withEnvironment(options.connection, (env) =>
    toolOutput(
      {
        name: 'pg_dump',
        path: options.tools.pg_dump,
        args: [
          '--format=custom',
          '--compress=0',
          '--no-password',
          ...(options.snapshot === undefined ? [] : [`--snapshot=${options.snapshot}`]),
          ...(options.sections ?? []).map((section) => `--section=${section}`),
          ...(options.tables ?? []),
          // Else they would be read in the encoding of the database.
          ...(options.tables?.some((text) => /[^\0-\x7f]/.test(text)) ? ['--encoding=UTF8'] : []),
        ],
        env,
        failure: 'dump.failed',
        signal: options.signal,
        onLine: warningsOf(options.onWarning),
      },
      { inLargeBlocks: true },
    ),
  )

export interface GlobalsOptions {
  connection: Connection
  tools: Tools
  /** Hashes of the roles' passwords too; only a superuser may read them. */
  withPasswords: boolean
  signal: AbortSignal
}

// The command takes a connection string here, where any name of a database can be quoted.
export const conninfo = (database: string): string => `dbname='${database.replace(/[\\']/g, '\\$&')}'`

/** Roles, their settings and memberships, and tablespaces, as SQL (pg_dumpall --globals-only). Fails with `dump.failed`. */
export const dumpGlobals = ({ connection, tools, withPasswords, signal }: GlobalsOptions): ByteSource =>
  withEnvironment(connection, (env) =>
    toolOutput({
      name: 'pg_dumpall',
      path: tools.pg_dumpall,
      args: [
        '--globals-only',
        '--no-password',
        `--database=${conninfo(connection.database)}`,
        ...(withPasswords ? [] : ['--no-role-passwords']),
      ],
      env,
      failure: 'dump.failed',
      signal,
    }),
  )
