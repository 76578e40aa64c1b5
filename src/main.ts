#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8'
import { createOutput, type Output } from './cli/output.js'
import type { Run } from './cli/context.js'
import { runProgram } from './cli/program.js'
import { BackupdError, exitCodeOf } from './errors.js'

// The buffers of a stream make V8 look through the whole heap every 30 MB. In one go that takes some 20 ms, which nobody here notices; in
// steps beside the work, as is its way, it takes several times the processor: measured 7.7 s for a backup of 700 MB, and 5.9 s with this.
setFlagsFromString('--no-incremental-marking')

const first = new AbortController()
const second = new AbortController()

// The first signal asks everything to end cleanly, the second not to wait for running work; a third one leaves at once.
const onSignal = (name: NodeJS.Signals): void => {
  const next = [first, second].find(({ signal }) => !signal.aborted)
  if (next === undefined) process.exit(130)
  next.abort(new BackupdError('cancelled', `cancelled by ${name}`))
}

const words = process.argv.slice(2)
// Decided before parsing, so that a wrong option is reported in the form that was asked for.
let out: Output = createOutput(words.includes('--json'), process.stdout, process.stderr)

const run = (json: boolean): Run => async (action) => {
  const { withContext } = await import('./cli/run.js')
  out = createOutput(json, process.stdout, process.stderr)
  await withContext({ env: process.env, out, signal: first.signal, urgent: second.signal, stderr: process.stderr }, action)
}

process.on('SIGINT', onSignal)
process.on('SIGTERM', onSignal)
// A reader that has seen enough (`backupd list | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

try {
  await runProgram(words, run)
  process.exitCode = process.exitCode ?? 0
} catch (error) {
  out.failure(error)
  process.exitCode = exitCodeOf(error)
}
// Everything is put away. What still holds the process, such as a connection that the driver lost while it was being made, is over.
setTimeout(() => process.exit(), 1_000).unref()
