import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { createPool, type Pool } from '../../src/compression/pool.js'
import { failureOf, noise, threads } from '../conformance/streams.js'

const LARGE = 300_000
const make = (size: number): Pool<string> =>
  createPool<string>(size, new URL('./test-thread.ts', import.meta.url), async (_work, input, output) => (output.set(input), input.length))
const job = (work: string, input = noise(LARGE)) => ({ work, input, room: input.length })

t.test('jobs are done, small ones on the spot, each with its own result', async (t) => {
  const before = threads()
  const pool = make(2)
  const small = noise(1000)
  t.ok((await pool.run(job('copy', small))).equals(small))
  t.equal(threads(), before, 'no thread for a small one')
  const inputs = Array.from({ length: 7 }, (_, index) => noise(LARGE + index))
  const results = await Promise.all(inputs.map((input) => pool.run(job('copy', input))))
  t.ok(results.every((result, index) => result.equals(inputs[index] as Buffer)))
  await pool.close()
  t.ok(threads() <= before + 1, `${threads()} threads, ${before} before`)
})

t.test('a thread that dies fails its job alone; the next gets a new thread', async (t) => {
  const pool = make(1)
  for (const work of ['exit', 'throw']) {
    const [lost, waiting] = [pool.run(job(work)), pool.run(job('copy'))]
    t.match(await failureOf(() => lost), { code: 'compression.thread', retryable: true, message: work === 'exit' ? /exit code 3/ : /thrown in the thread/ })
    t.equal((await waiting).length, LARGE)
  }
  await t.rejects(pool.run(job('fail')), { message: 'it does not work' })
  t.equal((await pool.run(job('copy'))).length, LARGE, 'a job that failed costs no thread')
  await pool.close()
})

t.test('a script that cannot be started fails every job', async (t) => {
  const pool = createPool<string>(2, new URL('./absent-thread.ts', import.meta.url), () => Promise.resolve(0))
  const failures = await Promise.all([1, 2, 3, 4].map(() => failureOf(() => pool.run(job('copy')))))
  t.strictSame(failures.map(({ code }) => code), Array(4).fill('compression.thread'))
  await pool.close()
})

t.test('closing fails what is not done', async (t) => {
  const pool = make(1)
  const jobs = [pool.run(job('hang')), pool.run(job('copy'))].map((running) => failureOf(() => running))
  await pool.close()
  for (const error of await Promise.all(jobs)) t.equal(error.code, 'compression.thread')
  t.equal((await failureOf(() => pool.run(job('copy')))).code, 'compression.thread')
})

t.test('a pool that nobody closed does not keep the process alive', async (t) => {
  const script = fileURLToPath(new URL('./unclosed-pool.ts', import.meta.url))
  const out = execFileSync(process.execPath, [...process.execArgv, script], { encoding: 'utf8', timeout: 120_000 })
  t.equal(out, '300000 600000 900000')
})
