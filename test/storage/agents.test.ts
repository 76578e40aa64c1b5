import { createServer, get, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createSecureServer, get as secureGet } from 'node:https'
import type { AddressInfo } from 'node:net'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { createAgents } from '../../src/storage/agents.js'
import { bytes, digestOf } from '../conformance/bytes.js'
import { makeCertificate } from '../servers/certificate.js'

// Connections read into the same memory again and again. It rests on Node's HTTP parser copying bodies out of it, so all blocks are held
// to the end here, where one that was overwritten shows, and some are read late, which has the connection stop and go on.
const size = 20_000_000
const blocks: Uint8Array[] = []
for await (const block of bytes(1, size)) blocks.push(block)
const wanted = await digestOf(bytes(1, size))

const serve: RequestListener = async (request, response) => {
  if (request.url === '/whole') response.setHeader('content-length', size)
  for (const block of blocks) if (!response.write(block)) await new Promise((done) => response.once('drain', done))
  response.end()
}

const dir = mkdtempSync(join(tmpdir(), 'backupd-agents-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))
const certificate = makeCertificate(dir)
const tls = { key: readFileSync(certificate.key), cert: readFileSync(certificate.cert) }

for (const scheme of ['http', 'https'] as const) {
  await t.test(`bodies over ${scheme} stay as they came`, async (s) => {
    const server = scheme === 'http' ? createServer(serve) : createSecureServer(tls, serve)
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    const { plain, secure } = createAgents()
    const { port } = server.address() as AddressInfo
    const fetched = (path: string): Promise<IncomingMessage> =>
      new Promise((resolve, reject) => {
        const url = `${scheme}://127.0.0.1:${port}${path}`
        const request = scheme === 'http' ? get(url, { agent: plain }, resolve) : secureGet(url, { agent: secure, ca: tls.cert }, resolve)
        request.on('error', reject)
      })
    try {
      for (const path of ['/whole', '/chunked']) {
        for (const late of [false, true]) {
          const held: Buffer[] = []
          for await (const block of await fetched(path)) {
            held.push(block as Buffer)
            if (late && held.length % 20 === 0) await sleep(5)
          }
          const found = (async function* () {
            yield* held
          })()
          s.strictSame(await digestOf(found), wanted, `${path}, ${late ? 'read late' : 'read at once'}`)
        }
      }
    } finally {
      plain.destroy()
      secure.destroy()
      server.close()
      server.closeAllConnections()
    }
  })
}
