// All measurements of docs/performance.md, one after the other. Each also runs by itself; see the head of its file.
// Usage: npm run bench [-- MEGABYTES]
import { spawnSync } from 'node:child_process'

const megabytes = process.argv[2] ?? '1000'
const scripts = [['start.mjs'], ['codecs.mjs'], ['backup.mjs', '100', '3'], ['backup.mjs', megabytes], ['idle.mjs'], ['fleet.mjs'], ['chaos.mjs'], ['retention.mjs']]
for (const [script, ...args] of scripts) {
  console.log(`\n== ${script} ${args.join(' ')}`)
  const { status } = spawnSync(process.execPath, [new URL(script, import.meta.url).pathname, ...args], { stdio: 'inherit' })
  if (status !== 0) process.exitCode = 1
}
