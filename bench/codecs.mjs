// Every codec at its default level on generated rows: speed, ratio, processor time, memory.
//   node bench/codecs.mjs [MiB]        after `npm run build`; each codec runs in a process of its own
import { spawnSync } from 'node:child_process'
import { availableParallelism, cpus, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'

const MIB = 1024 * 1024
const size = Number(process.argv[2] ?? 256) * MIB
const only = process.argv[3]
const script = fileURLToPath(import.meta.url)
const dist = new URL('../dist/', import.meta.url)
const words = ('account address amount archive batch billing cancelled carrier category city closed comment completed country created currency customer deleted delivery '
  + 'discount email failed invoice item order paid partner payment pending phone postal price product quantity refund region returned shipped status street total').split(' ')

// The same rows each time, as COPY writes them: numbers, times, a few words, JSON, and 16 bytes of every row that nothing compresses.
const createRows = () => {
  let state = 20261123
  const random = (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 4294967296) * below)
  }
  const word = () => words[random(words.length)]
  const two = (number) => String(number).padStart(2, '0')
  let id = 0
  return () => {
    const uuid = [0, 1, 2, 3].map(() => random(4294967296).toString(16).padStart(8, '0')).join('')
    const text = Array.from({ length: 3 + random(12) }, word).join(' ')
    const time = `2026-${two(1 + random(12))}-${two(1 + random(28))} ${two(random(24))}:${two(random(60))}:${two(random(60))}.${random(1_000_000)}+00`
    id += 1
    return `${id}\t${random(100_000)}\t${uuid}\t${time}\t${random(1_000_000) / 100}\t${word()}@example.com\t{"status": "${word()}", "items": ${random(20)}}\t${text}\t\\N\n`
  }
}

async function* generate() {
  const row = createRows()
  for (let made = 0; made < size; ) {
    let text = ''
    while (text.length < MIB) text += row()
    const bytes = Buffer.from(text, 'latin1').subarray(0, size - made)
    made += bytes.length
    yield bytes
  }
}

const timed = async (work) => {
  const [cpu, started] = [process.cpuUsage(), performance.now()]
  let peak = 0
  const timer = setInterval(() => { peak = Math.max(peak, process.memoryUsage.rss()) }, 20)
  const bytes = await work()
  clearInterval(timer)
  const used = process.cpuUsage(cpu)
  return { bytes, seconds: (performance.now() - started) / 1000, cpu: (used.user + used.system) / 1e6, peak: Math.max(peak, process.memoryUsage.rss()) }
}

const length = async (source, keep) => {
  let bytes = 0
  for await (const piece of source) {
    bytes += piece.length
    keep?.push(piece)
  }
  return bytes
}

const measure = async (type) => {
  const { codecs } = await import(new URL('compression/registry.js', dist))
  const { compressFrames } = await import(new URL('pipeline/frames.js', dist))
  const { signal } = new AbortController()
  const codec = codecs[type]
  const missing = await codec.unavailable()
  if (missing !== undefined) return { type, missing }
  // Made once beforehand, so that making rows is not what is measured; handed out again and again.
  const sample = []
  await length(generate(), sample)
  const before = process.memoryUsage.rss()
  const compressor = await codec.compressor({ concurrency: 3 })
  const packed = []
  const source = async function* () { yield* sample }
  const writing = await timed(() => length(compressFrames(source(), compressor, { signal }), packed))
  await compressor.close()
  const stored = packed.reduce((sum, piece) => sum + piece.length, 0)
  const back = async function* () { yield* packed }
  const reading = await timed(() => length(codec.decompress(back(), { signal })))
  if (reading.bytes !== size) throw new Error(`${type}: ${reading.bytes} bytes came back of ${size}`)
  return { type, level: codec.levels.default, stored, writing, reading, held: Math.max(writing.peak - before - stored, reading.peak - before - stored, 0) }
}

const row = (cells) => `| ${cells.join(' | ')} |`

if (only !== undefined) process.stdout.write(JSON.stringify(await measure(only)))
else {
  const [processor] = cpus()
  console.log(`Node ${process.version}, ${availableParallelism()} cores (${processor?.model.trim() ?? 'unknown'}), ${Math.round(totalmem() / MIB / 1024)} GiB; ${size / MIB} MiB of generated rows in memory.`)
  console.log('Processor time is that of all threads. Memory is what the process holds at its peak beyond the rows and the result.\n')
  console.log(row(['codec', 'level', 'compress MiB/s', 'cpu s', 'ratio', 'decompress MiB/s', 'cpu s', 'memory MiB']))
  console.log(row(['---', '---:', '---:', '---:', '---:', '---:', '---:', '---:']))
  for (const type of ['none', 'gzip', 'lz4', 'zstd']) {
    const child = spawnSync(process.execPath, [script, String(size / MIB), type], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
    if (child.status !== 0) throw new Error(`measuring ${type} ended with ${child.status}`)
    const { level, stored, writing, reading, held, missing } = JSON.parse(child.stdout)
    if (missing !== undefined) {
      console.log(row([type, 'not available here', missing.replaceAll('|', '/'), '', '', '', '', '']))
      continue
    }
    // Without compression nothing is done to the bytes on their way back.
    const speed = ({ seconds }) => (type === 'none' ? '' : Math.round(size / MIB / seconds))
    console.log(row([type, level, speed(writing), writing.cpu.toFixed(2), (size / stored).toFixed(2), speed(reading), reading.cpu.toFixed(2), Math.round(held / MIB)]))
  }
}
