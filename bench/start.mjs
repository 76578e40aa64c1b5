// How long `backupd --help` takes, and what it loads. Usage: node bench/start.mjs [ROUNDS]
import { spawnSync } from 'node:child_process'

const rounds = Number(process.argv[2] ?? 15)
const node = process.env.BENCH_NODE ?? process.execPath
const time = (args) => {
  const started = performance.now()
  const { status } = spawnSync(node, args, { stdio: 'ignore' })
  if (status !== 0) throw new Error(`node ${args.join(' ')} ended with ${status}`)
  return performance.now() - started
}
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]
const runs = (args) => median(Array.from({ length: rounds }, () => time(args)))
const empty = runs(['-e', '0'])
const help = runs(['dist/main.js', '--help'])
console.log(`backupd --help: ${help.toFixed(0)} ms, of which node itself ${empty.toFixed(0)} ms (median of ${rounds})`)
