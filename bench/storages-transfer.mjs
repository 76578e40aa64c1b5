// One transfer through a storage of the program, in a process of its own: see storages.mjs. Takes what to do as JSON on stdin, prints
// seconds and the peak resident memory in MB as JSON.
import { createReadStream, readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'

const { dist, type, config, parallel, action, key, file } = JSON.parse(await text(process.stdin))
const { openStorage } = await import(pathToFileURL(`${dist}/storage/registry.js`).href)
const { silentLog } = await import(pathToFileURL(`${dist}/log.js`).href)

const { signal } = new AbortController()
const storage = await openStorage(type, config, { log: silentLog(), parallelUploads: parallel, retryFor: 60_000 })
// What it takes to load an SDK is not counted, what it takes to connect is.
const began = process.cpuUsage()
const started = performance.now()
let bytes = 0
if (action === 'upload') ({ size: bytes } = await storage.write(key, createReadStream(file, { highWaterMark: 1024 * 1024 }), { signal }))
else for await (const block of storage.read(key, { signal })) bytes += block.length
const seconds = (performance.now() - started) / 1000
await storage.close()
// Not resourceUsage(), which begins with what the parent process had.
const memory = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024
const cpu = (({ user, system }) => (user + system) / 1e6)(process.cpuUsage(began))
console.log(JSON.stringify({ bytes, seconds, memory, cpu }))
