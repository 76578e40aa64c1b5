import { readFile, stat } from 'node:fs/promises'
import { buffer } from 'node:stream/consumers'
import { isAlias, isMap, isNode, isScalar, isSeq, LineCounter, parseDocument, visit, type Document, type Node, type YAMLError } from 'yaml'
import { BackupdError, messageOf } from '../../errors.js'
import { invalidFile, type Path, type Place, type Problem } from './problem.js'

/** A configuration file as it was read: its values, and where each stands. */
export interface ConfigurationFile {
  /** Its name, for people. */
  name: string
  value: unknown
  /** The place of a value; of the nearest one around it where it is not there. */
  place(path: Path): Place
  /** The place of a field's name in the object at `path`. */
  placeOfKey(path: Path, key: string): Place
  /** Names that an object has twice. */
  duplicates: Problem[]
}

const LARGEST = 4 * 1024 * 1024

const unreadable = (name: string, why: string, hint: string, cause?: unknown): BackupdError =>
  new BackupdError('apply.file', `the configuration ${name} cannot be read: ${why}`, { kind: 'configuration', hint, cause })

const bytesOf = async (name: string, stdin: NodeJS.ReadableStream): Promise<Buffer> => {
  if (name === '-') return buffer(stdin)
  try {
    // A device or a pipe has no size; reading it as a whole is what was asked for.
    if ((await stat(name)).size > LARGEST) throw unreadable(name, 'it has more than 4 MiB', 'Name the right file.')
    return await readFile(name)
  } catch (error) {
    if (error instanceof BackupdError) throw error
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    throw missing
      ? new BackupdError('apply.file_not_found', `there is no file ${name}`, { kind: 'notFound', hint: '"backupd export --out FILE" writes the configuration as it is.' })
      : unreadable(name, messageOf(error), 'Name a file that this user may read.', error)
  }
}

/** The text of a configuration file, `-` being standard input. Fails with `apply.file_not_found` (exit code 3) or `apply.file`. */
export const readConfigurationText = async (name: string, stdin: NodeJS.ReadableStream): Promise<string> => {
  const bytes = await bytesOf(name, stdin)
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (error) {
    throw unreadable(name, 'it is not UTF-8 text', 'Save it as UTF-8.', error)
  }
}

// What the parser says may quote the file, and with it a secret; so the words are ours.
const reasons: Readonly<Record<string, string>> = {
  ALIAS_PROPS: 'an alias cannot have a tag or an anchor',
  BAD_ALIAS: 'an alias or anchor has no name that is known before it',
  BAD_DIRECTIVE: 'a line that starts with % is not a directive of YAML',
  BAD_INDENT: 'the indentation fits none of the lines above',
  BAD_PROP_ORDER: 'an anchor or a tag stands in the wrong place',
  BAD_SCALAR_START: 'text cannot start with this character; put it in quotes',
  BLOCK_AS_IMPLICIT_KEY: 'a name: value stands on a line that has one already; put the text in quotes, or begin a new line',
  BLOCK_IN_FLOW: 'an indented list or object cannot stand inside of [ ] or { }',
  MISSING_CHAR: 'something is missing here: a closing quote or bracket, a comma, or a colon after a name',
  MULTILINE_IMPLICIT_KEY: 'a name and its colon have to be on one line',
  MULTIPLE_DOCS: 'there is more than one document in the file',
  NON_STRING_KEY: 'the name of a field has to be text',
  TAB_AS_INDENT: 'lines are indented with spaces, not tabs',
  TAG_RESOLVE_FAILED: 'tags (!name) are not used here',
  UNEXPECTED_TOKEN: 'this cannot stand here; is a quote, a bracket or an indentation wrong?',
}

const nameAt = (document: Document, offset: number): string => {
  let name = ''
  visit(document, {
    Pair: (_, { key }) => {
      if (isScalar(key) && key.range?.[0] === offset) name = String(key.value)
    },
  })
  return name
}

const step = (document: Document, node: unknown, key: string | number): Node | undefined => {
  const at = isAlias(node) ? node.resolve(document) : node
  const found = isMap(at) || isSeq(at) ? at.get(key, true) : undefined
  return isNode(found) ? found : undefined
}

/** Reads YAML 1.2, of which JSON is a part. Fails with `apply.invalid`, naming line and column of everything that is not YAML. */
export const parseConfiguration = (name: string, text: string): ConfigurationFile => {
  const counter = new LineCounter()
  const placeAt = (offset: number): Place => {
    const { line, col } = counter.linePos(Math.min(offset, text.length))
    return { line: Math.max(line, 1), column: Math.max(col, 1) }
  }
  const problem = (offset: number, code: string, message: string): Problem => ({ ...placeAt(offset), path: '', code, message })
  const whole = (message: string): BackupdError => invalidFile(name, [problem(0, 'apply.syntax', message)])

  const read = (): Document => {
    try {
      return parseDocument(text, { version: '1.2', schema: 'core', uniqueKeys: true, stringKeys: true, prettyErrors: false, lineCounter: counter })
    } catch {
      throw whole('it cannot be read as YAML or JSON: it is nested too deeply')
    }
  }
  const document = read()
  const isDuplicate = ({ code }: YAMLError): boolean => code === 'DUPLICATE_KEY'
  const broken = [...document.errors.filter((error) => !isDuplicate(error)), ...document.warnings]
  if (broken.length > 0) throw invalidFile(name, broken.map(({ code, pos }) => problem(pos[0], 'apply.syntax', reasons[code] ?? `this is not YAML (${code})`)))

  const nodeAt = (path: Path): Node | undefined => {
    let found: Node | undefined = document.contents ?? undefined
    for (const key of path) {
      const next = step(document, found, key)
      if (next === undefined) break
      found = next
    }
    return found
  }
  const placeOf = (node: Node | undefined): Place => placeAt(node?.range?.[0] ?? 0)
  let value: unknown
  try {
    value = document.toJS({ maxAliasCount: 100 })
  } catch {
    throw whole('an alias refers to itself, to nothing before it, or to too much')
  }
  return {
    name,
    value,
    place: (path) => placeOf(nodeAt(path)),
    placeOfKey: (path, key) => {
      const node = nodeAt(path)
      const map = isAlias(node) ? node.resolve(document) : node
      const pair = isMap(map) ? map.items.find((item) => isScalar(item.key) && item.key.value === key) : undefined
      return isScalar(pair?.key) ? placeOf(pair.key) : placeOf(node)
    },
    duplicates: document.errors.filter(isDuplicate).map(({ pos }) => problem(pos[0], 'apply.duplicate_field', `the field "${nameAt(document, pos[0])}" stands here twice in one object`)),
  }
}
