import { z } from 'zod'
import { jsonObject } from '../../catalog/json.js'
import { notifyWork } from '../../catalog/notifications.js'
import { updateSchedule, type Schedule } from '../../catalog/schedules.js'
import { BackupdError } from '../../errors.js'
import { recorded } from './configure.js'
import type { Environment } from '../environment.js'
import { scheduleNamed } from './schedules.js'

/** Seconds that a hook may take unless told otherwise. */
export const HOOK_TIMEOUT = 300

const seconds = 'a whole number of seconds from 1 to 86400'
const word = z.string('text').max(100_000, 'text of at most 100000 characters').refine((value) => !value.includes('\0'), 'text without a zero byte')
const command = z.strictObject({
  argv: z.array(word, 'a list of program and arguments').min(1, 'at least the program').max(200, 'at most 200 words').refine((words) => words[0] !== '', 'a program that is not empty')
    .describe('Program and arguments; with shell, one script for /bin/sh.'),
  shell: z.boolean('true or false').default(false).describe('Whether argv is a script for /bin/sh.'),
  timeout_seconds: z.int(seconds).min(1, seconds).max(86_400, seconds).default(HOOK_TIMEOUT).describe('How long it may take.'),
}, 'an object with argv').refine(({ argv, shell }) => !shell || argv.length === 1, { message: 'one script, because shell is true', path: ['argv'] })

/** Hooks as a configuration file and the column write them. */
export const hooksSchema = z.strictObject({
  pre: command.nullish().describe('Before each backup; if it fails, there is no backup.'),
  post: command.nullish().describe('After each backup, however it ended.'),
}, 'an object with pre and post')

/** Fields that may stand in hooks at `path`. */
export const hookFields = (path: readonly (string | number)[]): readonly string[] => (path.length === 0 ? Object.keys(hooksSchema.shape) : Object.keys(command.shape))

/** A command around a backup. */
export type Hook = z.output<typeof command>
export interface Hooks {
  pre?: Hook | null | undefined
  post?: Hook | null | undefined
}

const invalid = (why: string): BackupdError => new BackupdError('schedule.hooks', `the hooks of the schedule are not valid: ${why}`, {
  kind: 'configuration', hint: 'Write them as {"pre": {"argv": ["/path/to/program", "argument"], "timeout_seconds": 300}, "post": {…}}, or use "backupd schedule hooks".',
})

/** What the column says, which anybody may have written. Fails with `schedule.hooks`: a backup whose hook cannot be run is not taken as if it had none. */
export const hooksOf = ({ hooks }: Pick<Schedule, 'hooks'>): Hooks => {
  if (hooks === null || hooks === undefined) return {}
  if (typeof hooks !== 'string' && (typeof hooks !== 'object' || Array.isArray(hooks))) throw invalid('this is no object')
  const given = jsonObject(hooks)
  if (typeof hooks === 'string' && Object.keys(given).length === 0) throw invalid('this is no object')
  const parsed = hooksSchema.safeParse(given)
  if (parsed.success) return parsed.data
  throw invalid(parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; '))
}

/** One hook as typed: a JSON list of program and arguments or, with `shell`, a script. Fails with `schedule.hooks`. */
export const parseHook = (text: string, { shell = false, timeout }: { shell?: boolean | undefined; timeout?: number | undefined } = {}): Hook => {
  let argv: unknown = [text]
  if (!shell) {
    try {
      argv = JSON.parse(text)
    } catch {
      throw new BackupdError('schedule.hooks', 'a hook is written as a JSON list of program and arguments', { kind: 'usage', hint: `Such as '["/usr/local/bin/before", "--quiet"]'; with --hook-shell it is a script.` })
    }
  }
  const parsed = command.safeParse({ argv, shell, ...(timeout === undefined ? {} : { timeout_seconds: timeout }) })
  if (parsed.success) return parsed.data
  throw new BackupdError('schedule.hooks', `this is no hook: ${parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ')}`, { kind: 'usage' })
}

/** Changes the hooks of a schedule: null takes one away, undefined leaves it. Fails with `schedule.not_found` and `schedule.hooks`. */
export const setHooks = (env: Environment, name: string, change: Hooks): Promise<Hooks> =>
  recorded(env, { event: 'schedule.hooks_changed', action: 'update', type: 'schedule', name, risk: 'medium' }, async (tx) => {
    const row = await scheduleNamed(tx, name)
    // Both replaced: then it does not matter that what was there made no sense.
    const before = change.pre !== undefined && change.post !== undefined ? {} : hooksOf(row)
    const after = { pre: change.pre === undefined ? (before.pre ?? null) : change.pre, post: change.post === undefined ? (before.post ?? null) : change.post }
    await updateSchedule(tx, row.id, { hooks: after.pre === null && after.post === null ? null : after })
    await notifyWork(tx, { kind: 'schedule', id: row.id })
    return { result: after, id: row.id, before: { hooks: row.hooks }, after: { hooks: after } }
  })
