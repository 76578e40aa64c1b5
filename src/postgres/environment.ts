import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { connectTimeout, type Connection } from './connection.js'
import { makePrivateFolder } from './private-folder.js'

/** What a tool of PostgreSQL is started with, so that nothing about the connection is on its command line. */
export interface ToolEnvironment {
  env: Record<string, string>
  /** Removes the password file; never throws. */
  dispose(): Promise<void>
}

// What a tool may need from outside. All else stays away: PG* variables that would change the target, and our own secrets.
const inherited = ['PATH', 'HOME', 'TZ', 'TMPDIR', 'LD_LIBRARY_PATH', 'SSL_CERT_FILE', 'SSL_CERT_DIR']

const variables: Record<string, string> = {
  sslmode: 'PGSSLMODE',
  sslrootcert: 'PGSSLROOTCERT',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  sslcrl: 'PGSSLCRL',
  options: 'PGOPTIONS',
  application_name: 'PGAPPNAME',
  gssencmode: 'PGGSSENCMODE',
  channel_binding: 'PGCHANNELBINDING',
}

// PostgreSQL manual, "The Password File": a backslash and a colon are written with a backslash before.
const passfileLine = (password: string): string => `*:*:*:*:${password.replace(/[\\:]/g, '\\$&')}\n`

/** PG* variables and a 0600 password file in a private folder, for one or more tools; call `dispose` when the last one has ended. */
export const toolEnvironment = async (connection: Connection): Promise<ToolEnvironment> => {
  const dir = await makePrivateFolder('pass')
  const passfile = join(dir, 'passfile')
  const dispose = () => rm(dir, { recursive: true, force: true }).catch(() => undefined)
  try {
    await writeFile(passfile, connection.password === undefined ? '' : passfileLine(connection.password.reveal()), { mode: 0o600 })
  } catch (error) {
    await dispose()
    throw error
  }
  const env: Record<string, string> = {}
  for (const name of inherited) if (process.env[name] !== undefined) env[name] = process.env[name]
  // Messages in English, because some are looked for.
  Object.assign(env, {
    LC_ALL: 'C',
    PGHOST: connection.host,
    PGPORT: String(connection.port),
    PGUSER: connection.user,
    PGDATABASE: connection.database,
    PGPASSFILE: passfile,
    PGCONNECT_TIMEOUT: String(connectTimeout(connection)),
    PGAPPNAME: 'backupd',
    PGGSSENCMODE: 'disable',
  })
  for (const [option, name] of Object.entries(variables)) {
    const value = connection.options[option]
    if (value !== undefined) env[name] = value
  }
  return { env, dispose }
}
