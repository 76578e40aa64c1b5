import { BackupdError } from '../../errors.js'

/** One thing that is wrong with a configuration file, where it is, and what was expected; never a value that may be secret. */
export interface Problem {
  /** From 1. */
  line: number
  column: number
  /** Such as `schedules[0].cron`; empty for the file as a whole. */
  path: string
  code: string
  message: string
  hint?: string
}

/** Where something stands in a file. */
export interface Place {
  line: number
  column: number
}

/** Names and numbers that lead to a value, from the outermost in. */
export type Path = readonly (string | number)[]

/** `schedules[0].cron`. */
export const pathText = (path: Path): string =>
  path.map((step, at) => (typeof step === 'number' ? `[${step}]` : at === 0 ? step : `.${step}`)).join('')

/** `file.yaml:3:5: sources[0].url: what is wrong. What to do.` */
export const problemLine = (file: string, { line, column, path, message, hint }: Problem): string =>
  `${file}:${line}:${column}: ${path === '' ? '' : `${path}: `}${message}${hint === undefined ? '' : `. ${hint}`}`

/** The one error for all that is wrong with a file: `apply.invalid` (exit code 4), the problems in the order of the file in `details.problems`. */
export const invalidFile = (file: string, problems: readonly Problem[]): BackupdError => {
  const sorted = [...problems].sort((a, b) => a.line - b.line || a.column - b.column)
  const lines = sorted.map((problem) => `  ${problemLine(file, problem)}`)
  const count = `${sorted.length} ${sorted.length === 1 ? 'problem' : 'problems'}`
  return new BackupdError('apply.invalid', `the configuration has ${count}, and nothing was changed:\n${lines.join('\n')}`, {
    kind: 'configuration', details: { file, problems: sorted }, hint: 'The fields are described in docs/configuration.md.',
  })
}
