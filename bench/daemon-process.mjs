// A daemon with another rhythm than the command line's, for benchmarks: node daemon-process.mjs DIST OPTIONS, where OPTIONS is JSON
// with `trivial` (an operation that does nothing in place of a backup) and `retryDelay` (milliseconds).
import { pathToFileURL } from 'node:url'

const [dist, text = '{}'] = process.argv.slice(2)
const load = (file) => import(pathToFileURL(`${dist}/${file}`).href)
const { trivial = false, retryDelay } = JSON.parse(text)
const [{ runDaemon }, { readConfig }, { createLog }, { finish }, { isUnreachable }] = await Promise.all(
  ['daemon/daemon.js', 'config.js', 'log.js', 'catalog/queue.js', 'catalog/failures.js'].map(load))

const first = new AbortController()
const second = new AbortController()
for (const name of ['SIGTERM', 'SIGINT']) process.on(name, () => [first, second].find(({ signal }) => !signal.aborted)?.abort(new Error(name)))
process.on('unhandledRejection', (error) => {
  if (!isUnreachable(error)) throw error
})

const nothing = async (env, execution) => finish(env.catalog.db, execution.id, { from: 'running', to: 'completed', worker: env.workerId })
const config = readConfig(process.env)
await runDaemon({
  config, log: createLog({ level: config.logLevel ?? 'info', stream: process.stdout, human: false }), signal: first.signal, urgent: second.signal,
  options: { ...(trivial ? { perform: nothing } : {}), ...(retryDelay === undefined ? {} : { retryDelay: () => retryDelay }) },
})
setTimeout(() => process.exit(), 1_000).unref()
