import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { BackupdError } from '../../src/errors.js'
import { feedTool, toolOutput, toolText, type Tool } from '../../src/postgres/process.js'
import { Secret } from '../../src/secret.js'

const shell = (script: string, signal: AbortSignal = new AbortController().signal): Tool => ({
  name: 'tool', path: '/bin/sh', args: ['-c', script], env: { PATH: process.env['PATH'] ?? '' }, failure: 'dump.failed', signal,
})

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const goneSoon = async (pid: number): Promise<boolean> => {
  for (let tries = 0; tries < 100 && alive(pid); tries += 1) await sleep(50)
  return !alive(pid)
}

const consume = async (source: AsyncIterable<Uint8Array>): Promise<string> => {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

t.test('the output ends only when the program ended well', async (t) => {
  t.equal(await toolText(shell('echo out; echo noise >&2')), 'out\n')
  const seen: string[] = []
  await t.rejects((async () => {
    for await (const chunk of toolOutput(shell('echo everything; exec >&-; sleep 0.3; echo "pg_dump: error: too bad" >&2; exit 3'))) seen.push(chunk.toString())
  })(), { code: 'dump.failed', message: /exit code 3: pg_dump: error: too bad/, details: { exit_code: 3, signal: null } })
  t.same(seen, ['everything\n'])
  await t.rejects(toolText(shell('echo x; kill -9 $$')), { code: 'dump.failed', retryable: true, message: /SIGKILL/, details: { exit_code: null, signal: 'SIGKILL' } })
  await t.rejects(toolText({ ...shell(''), path: '/nonexistent/tool' }), { code: 'dump.failed', message: /cannot be started/ })
  t.equal((await consume(toolOutput(shell('head -c 3000000 /dev/zero'), { inLargeBlocks: true }))).length, 3_000_000)
})

t.test('the last lines of stderr are kept, without secrets', async (t) => {
  const secret = new Secret('sUrely-secret-71')
  const tool = shell(`for i in $(seq 1 200); do echo "line $i ${secret.reveal()}" >&2; done; printf 'no newline' >&2; head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1`)
  const error = await toolText(tool).catch((thrown: unknown) => thrown)
  if (!(error instanceof BackupdError)) throw error
  const lines = error.details?.['stderr'] as string[]
  t.equal(lines.length, 20)
  t.equal(lines[0], 'line 182 [secret]')
  t.ok(JSON.stringify(error.details).length < 5_000)
})

t.test('messages of PostgreSQL get a hint and their kind', async (t) => {
  const failing = async (line: string) => toolText(shell(`echo '${line}' >&2; exit 1`)).catch((thrown: unknown) => thrown as BackupdError)
  t.match(await failing('pg_dump: error: query failed: ERROR:  permission denied for table secrets'), { kind: 'configuration', hint: /GRANT/, retryable: false })
  t.match(await failing('pg_dump: error: Dumping the contents of table "t" failed: server closed the connection unexpectedly'), { retryable: true, hint: /server/ })
  t.match(await failing('ERROR:  invalid snapshot identifier: "x"'), { hint: /proxy/ })
  t.match(await failing('something never seen'), { kind: 'failed', hint: /last lines/ })
})

t.test('an abort ends the whole group, by force when it does not listen', async (t) => {
  const stop = new AbortController()
  let pids: number[] = []
  const reading = (async () => {
    for await (const chunk of toolOutput(shell('sleep 300 & echo $! $$; wait', stop.signal))) {
      pids = chunk.toString().trim().split(' ').map(Number)
      stop.abort(new BackupdError('run.stalled', 'stalled'))
    }
  })()
  await t.rejects(reading, { code: 'run.stalled' })
  for (const pid of pids) t.ok(await goneSoon(pid))

  const stubborn = new AbortController()
  const started = Date.now()
  const waiting = (async () => {
    for await (const chunk of toolOutput(shell('trap "" TERM; echo $$; while :; do sleep 0.1; done', stubborn.signal))) {
      pids = [Number(chunk.toString())]
      stubborn.abort()
    }
  })()
  await t.rejects(waiting, { code: 'cancelled' })
  t.ok(Date.now() - started < 8_000)
  t.ok(await goneSoon(pids[0] ?? 0))
})

t.test('a reader that leaves ends the program', async (t) => {
  let pid = 0
  for await (const chunk of toolOutput(shell('echo $$; exec yes'))) {
    pid = Number(chunk.toString().split('\n')[0])
    break
  }
  t.ok(pid > 0 && await goneSoon(pid))
})

async function* blocks(count: number, size: number, atEnd?: () => Promise<void> | void) {
  for (let i = 0; i < count; i += 1) yield randomBytes(size)
  await atEnd?.()
}

t.test('a slow program is waited for, and gets every byte', async (t) => {
  const hash = createHash('sha256')
  let ahead = 0
  async function* counted() {
    for await (const block of blocks(64, 256 * 1024)) {
      hash.update(block)
      ahead += block.length
      yield block
    }
  }
  let output = ''
  const feeding = feedTool(shell('sleep 1; sha256sum'), { source: counted(), onOutput: (chunk) => { output += chunk.toString() } })
  await sleep(500)
  t.ok(ahead < 4 * 1024 * 1024, `${ahead} bytes were read ahead`)
  await feeding
  t.equal(output.slice(0, 64), hash.digest('hex'))
})

t.test('an error of the source ends the program and is what is told', async (t) => {
  let output = ''
  const source = blocks(3, 100_000, async () => {
    while (output === '') await sleep(20)
    throw new BackupdError('integrity.digest', 'wrong digest')
  })
  await t.rejects(feedTool(shell('echo $$; cat >/dev/null; sleep 300'), { source, onOutput: (chunk) => { output += chunk.toString() } }), { code: 'integrity.digest' })
  t.ok(await goneSoon(Number(output)))
})

t.test('a program that fails first ends the source', async (t) => {
  let closed = false
  async function* endless() {
    try {
      for (;;) yield randomBytes(65_536)
    } finally {
      closed = true
    }
  }
  await t.rejects(feedTool(shell('head -c 100000 >/dev/null; echo "pg_restore: error: no" >&2; exit 1'), { source: endless() }), { code: 'dump.failed', message: /pg_restore: error: no/ })
  await sleep(50)
  t.ok(closed)
  async function* stuck(): AsyncGenerator<Uint8Array> {
    yield randomBytes(10)
    await sleep(600_000, undefined, { ref: false })
  }
  await t.rejects(feedTool(shell('sleep 0.3; exit 7'), { source: stuck() }), { message: /exit code 7/ })
})

t.test('a program that needs less than all does not hide a damaged end', async (t) => {
  let read = 0
  async function* counted(fail: boolean) {
    for await (const block of blocks(50, 100_000)) {
      read += block.length
      yield block
    }
    if (fail) throw new BackupdError('integrity.digest', 'wrong digest')
  }
  await feedTool(shell('head -c 10 >/dev/null'), { source: counted(false) })
  t.equal(read, 5_000_000)
  await t.rejects(feedTool(shell('head -c 10 >/dev/null'), { source: counted(true) }), { code: 'integrity.digest' })
})
