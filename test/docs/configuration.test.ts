import { readFileSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { configurationJsonSchema } from '../../src/operation/apply/schema.js'
import { kinds } from '../../src/operation/apply/kinds.js'
import { machineOn, serverFor } from '../cli/setup.js'

const docs = new URL('../../docs/', import.meta.url)
const page = readFileSync(new URL('configuration.md', docs), 'utf8')

t.test('the published schema is the one of this version', async (t) => {
  t.same(JSON.parse(readFileSync(new URL('backupd.schema.json', docs), 'utf8')), JSON.parse(JSON.stringify(configurationJsonSchema())), 'else run npm run schema')
})

t.test('every field is described', async (t) => {
  for (const { section, fields } of kinds) {
    const described = new RegExp(`### ${section}\\n([\\s\\S]*?)(?=\\n##|$)`).exec(page)?.[1] ?? ''
    for (const field of fields({}, [])) t.match(described, `\`${field}\``, `${section}: ${field}`)
  }
})

t.test('the example can be applied, and then is what there is', async (t) => {
  const machine = await machineOn(t, await serverFor(t))
  const example = /## An example\n+```yaml\n([\s\S]*?)```/.exec(page)?.[1] ?? ''
  const file = machine.path('backupd.yaml')
  writeFileSync(file, example)
  const done = await machine.cli(['apply', file, '--yes', '--json'], { env: { SHOP_PASSWORD: 'a-password' } })
  t.equal(done.code, 0, done.stderr)
  const { changes } = done.json<{ changes: { type: string }[] }>()
  t.strictSame([...new Set(changes.map(({ type }) => type))].sort(), kinds.map(({ type }) => type).sort(), 'it shows every kind of object')
  t.match(await machine.cli(['apply', file, '--prune', '--yes']), { code: 0, stdout: /^nothing to do/m })
})
