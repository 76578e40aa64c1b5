import { BackupdError, type FailureOptions } from '../errors.js'

/** How a program ended that did not end well. */
export interface BadExit {
  exitCode: number | null
  signal: NodeJS.Signals | null
  /** Its last lines on stderr, cleaned of secrets. */
  stderr: string[]
}

interface Known {
  pattern: RegExp
  hint: string
  options?: Pick<FailureOptions, 'kind' | 'retryable'>
}

// Messages of PostgreSQL's programs and servers that users meet, first match wins.
const known: Known[] = [
  { pattern: /aborting because of server version mismatch/, hint: 'Install client programs of the server\'s major version, or newer.', options: { kind: 'configuration' } },
  { pattern: /password authentication failed|no pg_hba\.conf entry|no password supplied/, hint: 'Check user and password of the connection.', options: { kind: 'configuration' } },
  { pattern: /database "[^"]*" does not exist/, hint: 'Check the name of the database.', options: { kind: 'configuration' } },
  { pattern: /query would be affected by row-level security/, hint: 'Use a role with BYPASSRLS, the owner of the tables or a superuser: rows hidden by a policy would be missing.', options: { kind: 'configuration' } },
  // pg_read_all_data does not mean these.
  { pattern: /permission denied for large object \S+/, hint: 'Grant SELECT ON LARGE OBJECT to the role for each of them, or use the role that owns them.', options: { kind: 'configuration' } },
  { pattern: /permission denied for (?:table|view|relation|sequence|schema) \S+/, hint: 'Grant SELECT (and USAGE on the schema) to the role, for example with GRANT pg_read_all_data, or exclude what it may not read.', options: { kind: 'configuration' } },
  { pattern: /must be superuser|must be owner of|permission denied/, hint: 'Use a role that may do this.', options: { kind: 'configuration' } },
  { pattern: /invalid snapshot identifier|cannot import a snapshot|snapshot "[^"]*" does not exist/, hint: 'The snapshot is not known on this connection: connect to the server itself and not through a proxy or a balancer.' },
  { pattern: /conflict with recovery/, hint: 'The standby cancelled the query; raise max_standby_streaming_delay there or back up the primary.', options: { retryable: true } },
  { pattern: /lock timeout|deadlock detected/, hint: 'Something holds a lock on a table that is needed; try when it is gone.', options: { retryable: true } },
  { pattern: /role "[^"]*" does not exist/, hint: 'Create the role on the target, or restore the globals first.', options: { kind: 'configuration' } },
  { pattern: /extension "[^"]*" is not available|could not open extension control file/, hint: 'Install the extension\'s package on the target server.', options: { kind: 'configuration' } },
  { pattern: /No space left on device|could not extend file|disk full/i, hint: 'A disk is full, here or on the server; make room.' },
  { pattern: /out of memory/i, hint: 'The server or this machine ran out of memory.', options: { retryable: true } },
  { pattern: /other objects depend on it/, hint: 'Objects outside the chosen tables depend on one of them: restore the whole database, or the table into a new database and copy its rows.' },
  { pattern: /already exists/, hint: 'The target is not empty; restore into a new database.' },
  { pattern: /did not find magic string|not appear to be a valid archive|unexpected end of file|unsupported version \([0-9.]+\) in file header|could not read from input file/, hint: 'The archive is damaged, or newer than this pg_restore.', options: { kind: 'integrity' } },
  { pattern: /server closed the connection unexpectedly|terminating connection|connection to server .* (?:failed|was lost)|SSL connection has been closed|could not receive data from server|could not connect to server|no connection to the server|(?:shutting|starting) up/, hint: 'The server or the network went away; see the server\'s log.', options: { retryable: true } },
]

const firstError = (lines: string[]): string | undefined =>
  lines.find((line) => /(?:error|fatal|FATAL|ERROR):/.test(line)) ?? lines.findLast((line) => line.trim() !== '')

/** The error of a program that did not end with 0: its own words, what they mean, and whether to try again. */
export const toolFailure = (code: string, program: string, exit: BadExit): BackupdError => {
  const text = exit.stderr.join('\n')
  const match = known.find(({ pattern }) => pattern.test(text))
  const how = exit.signal === null ? `ended with exit code ${exit.exitCode}` : `was ended by ${exit.signal}`
  const words = firstError(exit.stderr)
  const killed = exit.signal !== null
  return new BackupdError(code, `${program} ${how}${words === undefined ? '' : `: ${words}`}`, {
    retryable: match?.options?.retryable ?? killed,
    ...(match?.options?.kind === undefined ? {} : { kind: match.options.kind }),
    hint: match?.hint ?? (killed ? 'Something else on this machine ended it; see the kernel\'s log for a lack of memory.' : 'See the last lines of its output.'),
    details: { program, exit_code: exit.exitCode, signal: exit.signal, stderr: exit.stderr },
  })
}
