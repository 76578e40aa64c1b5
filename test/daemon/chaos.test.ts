import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { programPath } from '../support/cli.js'

// The short version of bench/chaos.mjs, which has 200 rounds and takes any seed.
const rounds = 10
const seed = 4

t.test(`${rounds} rounds of chaos lose nothing, do nothing twice, and leave nothing half-made`, async (t) => {
  const script = fileURLToPath(new URL('../../bench/chaos.mjs', import.meta.url))
  const child = spawn(process.execPath, [script, String(rounds), String(seed)], {
    env: { PATH: process.env['PATH'], BENCH_DIST: dirname(programPath()) }, stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => child.kill('SIGTERM'))
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (block: Buffer) => (output += block.toString()))
  const [code] = (await once(child, 'close')) as [number | null]
  t.equal(code, 0, output)
  t.match(output, /lost 0, doubled 0, stuck 0, half-made objects left 0/)
  t.match(output, /, [1-9]\d* completed, /)
})
