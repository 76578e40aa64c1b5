import { BackupdError } from '../../errors.js'

/** A value that stands elsewhere: in a variable of the environment or in a file. */
export type GivenReference = { $env: string } | { $file: string }

const shapes = '{"$env": "NAME"} or {"$file": "/path"}'

/**
 * The value of a field as the command line gives it: text, or a reference when it is written as one. Fails with `config.reference`
 * for what starts like a reference and is none.
 */
export const parseGiven = (text: string, field: string): string | GivenReference => {
  if (!/^\s*\{\s*("\$|$)/.test(text)) return text
  const invalid = (why: string): BackupdError => new BackupdError('config.reference', `${field} looks like a reference, but ${why}`, { kind: 'usage', hint: `Write ${shapes}.` })
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw invalid('it is not JSON')
  }
  const entries = Object.entries(value as Record<string, unknown>)
  const [first] = entries
  if (entries.length !== 1 || first === undefined || typeof first[1] !== 'string' || first[1] === '') throw invalid(`it is not ${shapes}`)
  if (first[0] === '$env') return { $env: first[1] }
  if (first[0] !== '$file') throw invalid(`it is not ${shapes}`)
  // The daemon has another working directory than the shell that this is typed into.
  if (!first[1].startsWith('/')) throw invalid('its path is not absolute')
  return { $file: first[1] }
}

/** Whether resolving failed because a reference leads nowhere on this machine, for this user. */
export const leadsNowhere = (error: unknown): boolean =>
  error instanceof BackupdError && (error.code === 'config.env_missing' || error.code === 'config.file')
