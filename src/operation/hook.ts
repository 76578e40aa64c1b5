import { spawn, type ChildProcess } from 'node:child_process'
import { executionById, type Execution } from '../catalog/executions.js'
import { catalogReason } from '../catalog/failures.js'
import { jsonObject } from '../catalog/json.js'
import { scheduleById, type Schedule } from '../catalog/schedules.js'
import { storageById } from '../catalog/storages.js'
import { addWarning } from '../catalog/warnings.js'
import { abortError, BackupdError, messageOf, throwIfAborted } from '../errors.js'
import { redact } from '../secret.js'
import type { Environment } from './environment.js'
import { hooksOf, type Hook } from './settings/hooks.js'

const KEPT_LINES = 20
const LINE_LENGTH = 500
// A hook that does not end on SIGTERM within this is ended by force. Milliseconds.
const GRACE = 5_000
// What it has left running in the background may hold its output open for ever.
const LAST_WORDS = 500
// When the daemon is being stopped. Milliseconds.
const HURRY = 20_000

/** Of the daemon's environment, what a program needs to run; everything else may be a secret. */
const passed = ['PATH', 'HOME', 'USER', 'LOGNAME', 'SHELL', 'LANG', 'LC_ALL', 'LC_CTYPE', 'TZ', 'TMPDIR']

const environmentFor = (facts: Readonly<Record<string, string | number | null | undefined>>): Record<string, string> => {
  const own = passed.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]] as const]))
  const told = Object.entries(facts).flatMap(([name, value]) => (value === null || value === undefined ? [] : [[name, redact(String(value)).replaceAll('\0', '')] as const]))
  return Object.fromEntries([...own, ...told])
}

const signalGroup = (child: ChildProcess, name: NodeJS.Signals): void => {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, name)
  } catch {
    // Nobody left to signal.
  }
}

/** The last lines of what a program says, cleaned of secrets. */
const listenTo = (child: ChildProcess): (() => string[]) => {
  const lines: string[] = []
  const rests = new Map<unknown, string>()
  const take = (line: string): void => {
    lines.push(redact(line).slice(0, LINE_LENGTH))
    if (lines.length > KEPT_LINES) lines.shift()
  }
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8')
    stream?.on('data', (text: string) => {
      const pieces = ((rests.get(stream) ?? '') + text).split('\n')
      rests.set(stream, (pieces.pop() ?? '').slice(0, 10 * LINE_LENGTH))
      for (const piece of pieces) take(piece)
    })
  }
  return () => {
    for (const rest of rests.values()) if (rest !== '') take(rest)
    rests.clear()
    return lines
  }
}

const failed = (when: 'pre' | 'post', message: string, details: Record<string, unknown>, cause?: unknown): BackupdError =>
  new BackupdError(`hook.${when}_failed`, `the ${when}-hook ${message}`, {
    retryable: true, details, hint: 'See what it wrote, and "backupd schedule hooks".', ...(cause === undefined ? {} : { cause }),
  })

/** Runs a hook to its end. Fails with `hook.pre_failed` or `hook.post_failed`, or as `signal` says; it and all it started are ended then. */
export const runHook = async (when: 'pre' | 'post', hook: Hook, env: Record<string, string>, signal: AbortSignal): Promise<void> => {
  throwIfAborted(signal)
  const [program = '', ...args] = hook.shell ? ['/bin/sh', '-c', ...hook.argv] : hook.argv
  const child = spawn(program, args, { env, cwd: '/', stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const words = listenTo(child)
  let late = false
  let force: NodeJS.Timeout | undefined
  const stop = (): void => {
    signalGroup(child, 'SIGTERM')
    force ??= setTimeout(() => signalGroup(child, 'SIGKILL'), GRACE)
  }
  const timer = setTimeout(() => {
    late = true
    stop()
  }, hook.timeout_seconds * 1000)
  signal.addEventListener('abort', stop)
  try {
    const { code, name } = await new Promise<{ code: number | null; name: NodeJS.Signals | null }>((resolve, reject) => {
      child.once('error', (error) => reject(failed(when, `cannot be started: ${error.message}`, { program }, error)))
      child.once('close', (exit, by) => resolve({ code: exit, name: by }))
      child.once('exit', (exit, by) => setTimeout(() => resolve({ code: exit, name: by }), LAST_WORDS))
    })
    if (signal.aborted || late) signalGroup(child, 'SIGKILL')
    if (signal.aborted) throw abortError(signal)
    const details = { program, exit_code: code, signal: name, stderr: words() }
    if (late) throw failed(when, `was ended: it took more than ${hook.timeout_seconds} seconds`, details)
    if (code !== 0) throw failed(when, name === null ? `ended with exit code ${code}` : `was ended by ${name}`, details)
  } finally {
    clearTimeout(timer)
    clearTimeout(force)
    signal.removeEventListener('abort', stop)
    child.stdout?.destroy()
    child.stderr?.destroy()
  }
}

const factsFor = async (env: Environment, when: 'pre' | 'post', schedule: Schedule, row: Execution): Promise<Record<string, string>> => {
  const { code } = jsonObject(row.error_details)
  return environmentFor({
    BACKUPD_HOOK: when,
    BACKUPD_SCHEDULE: schedule.name,
    BACKUPD_STORAGE: (await storageById(env.catalog.db, row.storage_backend_id))?.name,
    BACKUPD_BACKUP_ID: row.backup_id,
    BACKUPD_EXECUTION_ID: row.id,
    BACKUPD_BACKUP_TYPE: row.backup_type,
    BACKUPD_TRIGGER: row.triggered_by,
    BACKUPD_ATTEMPT: row.attempt,
    BACKUPD_STATUS: row.status,
    BACKUPD_LOCATION: row.storage_location,
    ...(when === 'pre' ? {} : {
      BACKUPD_SIZE_BYTES: row.size_bytes, BACKUPD_STORED_BYTES: row.compressed_size_bytes, BACKUPD_ERROR_CODE: typeof code === 'string' ? code : null, BACKUPD_ERROR: row.error_message?.slice(0, 2000),
    }),
  })
}

const scheduleOf = async (env: Environment, { schedule_id: id }: Execution): Promise<Schedule | undefined> =>
  id === null ? undefined : scheduleById(env.catalog.db, id)

/** What has to be done before the backup. Fails with `schedule.hooks` and `hook.pre_failed`, and then there is no backup. */
export const runPreHook = async (env: Environment, execution: Execution, signal: AbortSignal): Promise<void> => {
  const schedule = await scheduleOf(env, execution)
  const hook = schedule === undefined ? undefined : hooksOf(schedule).pre
  if (schedule === undefined || hook === undefined || hook === null) return
  await runHook('pre', hook, await factsFor(env, 'pre', schedule, execution), signal)
  env.log.info('the pre-hook has ended well')
}

/** What has to be done after the backup, however it ended. A failure is a warning of the execution, and never more. */
export const runPostHook = async (env: Environment, id: number): Promise<void> => {
  try {
    const row = await executionById(env.catalog.db, id)
    const schedule = row === undefined ? undefined : await scheduleOf(env, row)
    const hook = schedule === undefined ? undefined : hooksOf(schedule).post
    if (row === undefined || schedule === undefined || hook === undefined || hook === null) return
    // It is run also when the run was cancelled or the daemon is being stopped, but then it has less time.
    const hurry = env.signal.aborted ? AbortSignal.timeout(HURRY) : new AbortController().signal
    try {
      await runHook('post', hook, await factsFor(env, 'post', schedule, row), hurry)
      env.log.info('the post-hook has ended well')
    } catch (error) {
      const lines = error instanceof BackupdError && Array.isArray(error.details?.['stderr']) ? (error.details['stderr'] as string[]).slice(-5) : []
      const warning = redact([messageOf(error), ...lines].join('\n')).slice(0, 2000)
      env.log.warn({ warning }, 'the post-hook failed')
      await addWarning(env.catalog.db, id, warning)
    }
  } catch (error) {
    env.log.warn({ error: catalogReason(error) }, 'the post-hook was not run')
  }
}
