// Many seeded rounds of faults for each storage: cut, frozen, reset and slow connections while an object is written, swept and read back.
// Each round must end in a whole object or in an honest failure, leave nothing behind a sweep, and end. A short version is part of the tests.
// Usage: npm run build && node bench/faults.mjs [ROUNDS [FIRST_SEED [NAME ...]]], NAME being a file of test/storage without "-faults.test.ts"
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const rounds = process.argv[2] ?? '500'
const seed = process.argv[3] ?? '1'
const wanted = process.argv.slice(4)
const ending = '-faults.test.ts'
const all = readdirSync('test/storage').filter((name) => name.endsWith(ending)).map((name) => name.slice(0, -ending.length))
const unknown = wanted.filter((name) => !all.includes(name))
if (unknown.length > 0) throw new Error(`there is no ${unknown.join(', ')}; there are ${all.join(', ')}`)
const tap = fileURLToPath(new URL('../node_modules/tap/dist/esm/run.mjs', import.meta.url))

/** Counts of what the rounds of one storage found, from the lines of its TAP. */
const run = async (name) => {
  const started = performance.now()
  const child = spawn(process.execPath, [tap, '--reporter=tap', '--timeout=0', `test/storage/${name}${ending}`], {
    env: { ...process.env, BACKUPD_FAULT_ROUNDS: rounds, BACKUPD_FAULT_SEED: seed }, stdio: ['ignore', 'pipe', 'inherit'],
  })
  let text = ''
  child.stdout.on('data', (block) => (text += block))
  const code = await new Promise((resolve) => child.on('close', resolve))
  const lines = text.split('\n').map((line) => line.trim())
  const count = (pattern) => lines.filter((line) => pattern.test(line)).length
  const bad = lines.filter((line) => line.startsWith('not ok'))
  console.log(`${name}: ${count(/^ok \d+ - swept: seed/)} of ${rounds} rounds from seed ${seed}, ${count(/^ok \d+ - whole: seed/)} objects whole, ${count(/^ok \d+ - read: seed/)} read back, ${count(/^ok \d+ - honest failure: seed/)} reads given up honestly, ${bad.length} wrong, ${((performance.now() - started) / 60_000).toFixed(0)} min`)
  for (const line of bad.slice(0, 20)) console.log(`  ${line}`)
  return code === 0 && bad.length === 0
}

for (const name of wanted.length > 0 ? wanted : all) if (!(await run(name))) process.exitCode = 1
