// Run by pool.test.ts: uses a pool and forgets to close it; the process has to end all the same.
import { createPool } from '../../src/compression/pool.js'

const pool = createPool<string>(2, new URL('./test-thread.ts', import.meta.url), () => Promise.reject(new Error('not on the spot')))
const results = await Promise.all([1, 2, 3].map((size) => pool.run({ work: 'copy', input: Buffer.alloc(size * 300_000), room: 1_000_000 })))
process.stdout.write(results.map(({ length }) => length).join(' '))
