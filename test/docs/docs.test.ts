import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { commands } from '../../src/cli/registry.js'
import { variables } from '../../src/config.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const pages = ['README.md', 'CHANGELOG.md', ...readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)]
const textOf = (page: string): string => readFileSync(join(root, page), 'utf8')

t.test('links lead somewhere', async (t) => {
  for (const page of pages) {
    for (const [, target = ''] of textOf(page).matchAll(/\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)/g)) {
      t.ok(existsSync(join(root, dirname(page), target)), `${page}: ${target}`)
    }
  }
})

t.test('every variable is described, and none that does not exist', async (t) => {
  const described = [...textOf('docs/operations.md').matchAll(/^\| `(BACKUPD_\w+)` \|/gm)].map(([, name]) => name)
  t.strictSame(described.sort(), Object.keys(variables).sort())
  for (const page of pages) {
    for (const [name] of textOf(page).matchAll(/BACKUPD_[A-Z_]+[A-Z]/g)) t.ok(name in variables || name.replace(/_FILE$/, '') in variables, `${page}: ${name}`)
  }
})

t.test('only commands that exist are shown', async (t) => {
  const known = new Set(commands.map(({ name }) => name))
  for (const page of pages) {
    for (const [, block = ''] of textOf(page).matchAll(/```(?:text|sh|console)\n([\s\S]*?)```/g)) {
      for (const [, name = ''] of block.matchAll(/^(?:\$ )?(?:docker (?:compose )?exec backupd )?backupd ([a-z-]+)/gm)) t.ok(known.has(name), `${page}: backupd ${name}`)
    }
    for (const [, name = ''] of textOf(page).matchAll(/`backupd ([a-z-]+)[^`]*`/g)) t.ok(known.has(name), `${page}: backupd ${name}`)
  }
})

t.test('the alerts are rules, about metrics that exist', async (t) => {
  const rules = /```yaml\n(groups:[\s\S]*?)```/.exec(textOf('docs/operations.md'))?.[1] ?? ''
  const file = join(t.testdir(), 'rules.yml')
  writeFileSync(file, rules)
  t.match(execFileSync('promtool', ['check', 'rules', file], { encoding: 'utf8' }), /SUCCESS: \d+ rules found/)
  const metrics = readFileSync(join(root, 'src/http/metrics.ts'), 'utf8')
  for (const [, name = ''] of rules.matchAll(/\bbackupd_([a-z_]+)/g)) t.ok(metrics.includes(`'${name}'`), `backupd_${name}`)
})
