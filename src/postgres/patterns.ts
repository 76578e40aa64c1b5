import { BackupdError } from '../errors.js'

/** What names of tables are compared with. */
export interface Pattern {
  /** As it was written. */
  text: string
  /** Undefined: any schema. */
  schema: RegExp | undefined
  name: RegExp
}

const invalid = (text: string, reason: string): BackupdError =>
  new BackupdError('pattern.invalid', `the table pattern ${JSON.stringify(text)} is not valid: ${reason}`, {
    kind: 'usage',
    hint: 'Write table, schema.table or either with * for any characters; a name with a dot, a star or a quote goes in double quotes.',
  })

const literal = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')

interface Reading {
  source: string
  /** Where it stopped. */
  end: number
}

// One name, up to an unquoted dot or the end. Outside double quotes * is any characters; inside, "" is one quote.
const readName = (text: string, from: number): Reading => {
  let source = ''
  let at = from
  let quoted = false
  for (; at < text.length; at += 1) {
    const char = text.charAt(at)
    if (quoted) {
      if (char !== '"') source += literal(char)
      else if (text.charAt(at + 1) === '"') {
        source += '"'
        at += 1
      } else quoted = false
    } else if (char === '"') quoted = true
    else if (char === '.') break
    else source += char === '*' ? '.*' : literal(char)
  }
  if (quoted) throw invalid(text, 'a double quote is not closed')
  if (source === '') throw invalid(text, 'a name is empty')
  return { source, end: at }
}

/** Reads `table` (in any schema) or `schema.table`; upper and lower case are different. Fails with `pattern.invalid`. */
export const parsePattern = (text: string): Pattern => {
  const first = readName(text, 0)
  const expression = ({ source }: Reading): RegExp => new RegExp(`^${source}$`, 's')
  if (first.end === text.length) return { text, schema: undefined, name: expression(first) }
  const second = readName(text, first.end + 1)
  if (second.end < text.length) throw invalid(text, 'it has more than one dot outside double quotes')
  return { text, schema: expression(first), name: expression(second) }
}

/** Whether `pattern` means this table. */
export const matches = (pattern: Pattern, { schema, name }: { schema: string; name: string }): boolean =>
  (pattern.schema?.test(schema) ?? true) && pattern.name.test(name)

/**
 * A name for pg_dump's -t and -T that means this one relation and nothing else: inside double quotes every character stands for
 * itself, and a double quote is written twice (psql manual, "Patterns").
 */
export const exactly = ({ schema, name }: { schema: string; name: string }): string =>
  `"${schema.replaceAll('"', '""')}"."${name.replaceAll('"', '""')}"`
