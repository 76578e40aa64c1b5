import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { CRC32C } from '@google-cloud/storage'

// A DOUBLE, not Google Cloud Storage: there is no server of it to install. Written from the documentation of the JSON and XML APIs, and
// strict: what it does not know or what the documentation forbids is refused, so that it errs on the side of failing a test.

interface Stored {
  data: Buffer
  generation: string
  updated: string
  metadata: Record<string, string>
  storageClass: string
}
interface Session {
  bucket: string
  name: string
  about: Partial<Stored>
  precondition: string | null
  received: Buffer[]
  size: number
  finished?: string
}
interface Multi {
  bucket: string
  name: string
  about: Partial<Stored>
  initiated: string
  parts: Map<number, { data: Buffer; etag: string }>
}

export interface GcsDouble {
  port: number
  endpoint: string
  /** `status` for the next `count` requests, with `Retry-After` seconds if given. */
  failNext(count: number, status: number, retryAfter?: number): void
  /** The next CompleteMultipartUpload answers 200 with an error inside, and does nothing. */
  lieOnce(): void
  /** From now on, requests without this token are refused; undefined: all are let in. */
  requireToken(token: string | undefined): void
  /** Flips a bit of everything that is stored from now on, as broken hardware does. */
  corrupt(on: boolean): void
  /** Unfinished uploads: sessions and multipart uploads. */
  unfinished(): number
  requests(): number
  stop(): Promise<void>
}

class Refusal extends Error {
  readonly status: number
  readonly reason: string
  constructor(status: number, reason: string, message: string) {
    super(message)
    this.status = status
    this.reason = reason
  }
}

const unit = 256 * 1024
const smallestPart = 5 * 1024 * 1024
// Every answer tells it, and computing it for a whole object at each read of a range would take longer than all else.
const knownCrcs = new WeakMap<Buffer, string>()

const crcOf = (data: Buffer): string => {
  const known = knownCrcs.get(data)
  if (known !== undefined) return known
  const crc = new CRC32C()
  crc.update(data)
  knownCrcs.set(data, crc.toString())
  return crc.toString()
}

const bodyOf = async (request: IncomingMessage): Promise<Buffer> => {
  const expected = request.headers['content-length']
  if (expected === undefined && request.method !== 'GET' && request.method !== 'DELETE') throw new Refusal(411, 'required', 'Content-Length is required')
  const blocks: Buffer[] = []
  for await (const block of request) blocks.push(block as Buffer)
  return Buffer.concat(blocks)
}

const checkName = (name: string): void => {
  if (name === '' || Buffer.byteLength(name) > 1024 || /[\r\n\0]/.test(name) || name === '.' || name === '..') throw new Refusal(400, 'invalid', 'Invalid object name')
}

const allow = (query: URLSearchParams, ...names: string[]): void => {
  for (const name of query.keys()) if (!names.includes(name)) throw new Refusal(400, 'invalidParameter', `the double does not know the parameter ${name}`)
}

const xmlText = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

/** Starts the double on a free loopback port, with `buckets`. */
export const startGcsDouble = async ({ buckets = ['backups'] }: { buckets?: string[] } = {}): Promise<GcsDouble> => {
  const store = new Map(buckets.map((name) => [name, new Map<string, Stored>()]))
  const sessions = new Map<string, Session>()
  const multis = new Map<string, Multi>()
  let generation = 1_700_000_000_000_000
  let failing = { count: 0, status: 0, retryAfter: undefined as number | undefined }
  let lying = false
  let token: string | undefined
  let corrupting = false
  let requests = 0

  const bucketOf = (name: string): Map<string, Stored> => {
    const found = store.get(name)
    if (found === undefined) throw new Refusal(404, 'notFound', 'The specified bucket does not exist.')
    return found
  }
  const checkGeneration = (bucket: string, name: string, wanted: string | null): void => {
    if (wanted === null) return
    if ((bucketOf(bucket).get(name)?.generation ?? '0') !== wanted) throw new Refusal(412, 'conditionNotMet', 'At least one of the pre-conditions you specified did not hold.')
  }
  const keep = (bucket: string, name: string, about: Partial<Stored>, sent: Buffer): Stored => {
    checkName(name)
    const data = corrupting && sent.length > 0 ? Buffer.from(sent) : sent
    if (data !== sent) data[0] = (data[0] ?? 0) ^ 1
    const stored = { data, generation: String((generation += 1)), updated: new Date().toISOString(), metadata: about.metadata ?? {}, storageClass: about.storageClass ?? 'STANDARD' }
    bucketOf(bucket).set(name, stored)
    return stored
  }
  const describe = (name: string, { data, generation: of, updated, metadata, storageClass }: Stored) =>
    ({ kind: 'storage#object', name, size: String(data.length), generation: of, updated, metadata, storageClass, crc32c: crcOf(data) })
  // Some clients read only by this link.
  const withLink = (request: IncomingMessage, bucket: string, about: ReturnType<typeof describe>) =>
    ({ ...about, mediaLink: `http://${request.headers.host}/storage/v1/b/${bucket}/o/${encodeURIComponent(about.name)}?generation=${about.generation}&alt=media` })
  const json = (response: ServerResponse, status: number, value: unknown, headers: Record<string, string> = {}): void => {
    response.writeHead(status, { 'content-type': 'application/json; charset=UTF-8', ...headers })
    response.end(JSON.stringify(value))
  }
  const xml = (response: ServerResponse, text: string, headers: Record<string, string> = {}): void => {
    response.writeHead(200, { 'content-type': 'application/xml; charset=UTF-8', ...headers })
    response.end(`<?xml version='1.0' encoding='UTF-8'?>${text}`)
  }

  const upload = async (request: IncomingMessage, response: ServerResponse, bucket: string, query: URLSearchParams): Promise<void> => {
    const type = query.get('uploadType')
    if (request.method !== 'POST') throw new Refusal(405, 'methodNotAllowed', 'POST it is')
    allow(query, 'uploadType', 'name', 'ifGenerationMatch')
    const body = await bodyOf(request)
    bucketOf(bucket)
    if (type === 'resumable') {
      const about = JSON.parse(body.toString() || '{}') as Partial<Stored> & { name?: string }
      const name = query.get('name') ?? about.name ?? ''
      checkName(name)
      checkGeneration(bucket, name, query.get('ifGenerationMatch'))
      const id = randomUUID()
      sessions.set(id, { bucket, name, about, precondition: query.get('ifGenerationMatch'), received: [], size: 0 })
      response.writeHead(200, { location: `http://${request.headers.host}/upload/session/${id}`, 'content-length': '0' })
      response.end()
      return
    }
    if (type !== 'multipart') throw new Refusal(400, 'invalid', `uploadType ${String(type)}`)
    const boundary = /^multipart\/related; boundary=(\S+)$/.exec(request.headers['content-type'] ?? '')?.[1]
    if (boundary === undefined) throw new Refusal(400, 'badRequest', 'multipart/related with a boundary is required')
    const separator = Buffer.from(`--${boundary}`)
    const first = body.indexOf('\r\n\r\n')
    const second = body.indexOf(separator, first)
    const dataStart = body.indexOf('\r\n\r\n', second) + 4
    const dataEnd = body.lastIndexOf(`\r\n--${boundary}--`)
    if (first < 0 || second < 0 || dataStart < 4 || dataEnd < dataStart) throw new Refusal(400, 'badRequest', 'Malformed multipart body.')
    const about = JSON.parse(body.subarray(first + 4, second).toString()) as Partial<Stored> & { name?: string; crc32c?: string }
    const data = Buffer.from(body.subarray(dataStart, dataEnd))
    if (about.crc32c !== undefined && about.crc32c !== crcOf(data)) throw new Refusal(400, 'invalid', `Provided CRC32C "${about.crc32c}" doesn't match calculated CRC32C "${crcOf(data)}".`)
    const name = about.name ?? ''
    checkGeneration(bucket, name, query.get('ifGenerationMatch'))
    json(response, 200, describe(name, keep(bucket, name, about, data)))
  }

  const continueSession = async (request: IncomingMessage, response: ServerResponse, id: string): Promise<void> => {
    const session = sessions.get(id)
    if (session === undefined) throw new Refusal(410, 'gone', 'The upload session is gone.')
    if (request.method === 'DELETE') {
      sessions.delete(id)
      response.writeHead(499, { 'content-length': '0' })
      response.end()
      return
    }
    const finished = session.finished === undefined ? undefined : bucketOf(session.bucket).get(session.name)
    const range = /^bytes (?:(\d+)-(\d+)|\*)\/(\d+|\*)$/.exec(request.headers['content-range'] ?? '')
    if ((request.method !== 'PUT' && request.method !== 'POST') || range === null) throw new Refusal(400, 'badRequest', 'PUT with a Content-Range is required')
    const total = range[3] === '*' ? undefined : Number(range[3])
    const start = range[1] === undefined ? undefined : Number(range[1])
    if (session.finished !== undefined) {
      await bodyOf(request)
      if (finished?.generation !== session.finished) throw new Refusal(410, 'gone', 'The object was replaced since.')
      return json(response, 200, describe(session.name, finished))
    }
    const progress = (): void => {
      const range: Record<string, string> = session.size === 0 ? {} : { range: `bytes=0-${session.size - 1}` }
      // Clients in Go take a 308 for a redirection, and ask for this instead.
      if (request.headers['x-guploader-no-308'] === 'yes') response.writeHead(200, { 'content-length': '0', 'x-http-status-code-override': '308', ...range })
      else response.writeHead(308, { 'content-length': '0', ...range })
      response.end()
    }
    if (start === undefined) {
      if ((await bodyOf(request)).length > 0) throw new Refusal(400, 'badRequest', 'A status query has no body.')
      if (total === undefined || total !== session.size) return progress()
    } else {
      const length = Number(range[2]) - start + 1
      if (request.headers['content-length'] !== String(length)) throw new Refusal(400, 'badRequest', 'Content-Length and Content-Range differ.')
      if (start !== session.size) throw new Refusal(503, 'backendError', `The service has ${session.size} bytes, the request starts at ${start}.`)
      if (total === undefined && length % unit !== 0) throw new Refusal(400, 'badRequest', `A chunk that is not the last must be a multiple of ${unit} bytes.`)
      if (total !== undefined && start + length !== total) throw new Refusal(400, 'badRequest', 'The last chunk must end at the total.')
      // What arrived before the connection broke is kept in whole units, as the real one does.
      const blocks: Buffer[] = []
      let whole = true
      try {
        for await (const block of request) blocks.push(block as Buffer)
      } catch {
        whole = false
      }
      const got = Buffer.concat(blocks)
      const kept = whole ? got : got.subarray(0, got.length - (got.length % unit))
      session.received.push(kept)
      session.size += kept.length
      if (!whole) return
      if (total === undefined) return progress()
    }
    checkGeneration(session.bucket, session.name, session.precondition)
    const stored = keep(session.bucket, session.name, session.about, Buffer.concat(session.received))
    session.finished = stored.generation
    session.received = []
    json(response, 200, describe(session.name, stored))
  }

  const object = async (request: IncomingMessage, response: ServerResponse, bucket: string, name: string, query: URLSearchParams): Promise<void> => {
    const found = bucketOf(bucket).get(name)
    const wanted = query.get('generation')
    if (found === undefined || (wanted !== null && wanted !== found.generation)) throw new Refusal(404, 'notFound', `No such object: ${bucket}/${name}`)
    if (request.method === 'DELETE') {
      allow(query, 'generation')
      bucketOf(bucket).delete(name)
      response.writeHead(204)
      response.end()
      return
    }
    if (request.method !== 'GET') throw new Refusal(405, 'methodNotAllowed', request.method ?? '')
    allow(query, 'alt', 'generation', 'fields')
    if (query.get('alt') !== 'media') return json(response, 200, withLink(request, bucket, describe(name, found)))
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
    if (request.headers.range !== undefined && range === null) throw new Refusal(400, 'invalid', 'the double does not know this range')
    const headers = { 'x-goog-generation': found.generation, 'x-goog-hash': `crc32c=${crcOf(found.data)}`, 'content-type': 'application/octet-stream' }
    const [start, end] = [Number(range?.[1] ?? 0), Math.min(found.data.length, range?.[2] === undefined || range[2] === '' ? Infinity : Number(range[2]) + 1)]
    if (range !== null && start >= found.data.length) throw new Refusal(416, 'requestedRangeNotSatisfiable', 'Request range not satisfiable')
    const part = found.data.subarray(start, end)
    response.writeHead(range === null ? 200 : 206, { ...headers, 'content-length': String(part.length), ...(range === null ? {} : { 'content-range': `bytes ${start}-${end - 1}/${found.data.length}` }) })
    response.end(part)
  }

  const list = (request: IncomingMessage, response: ServerResponse, bucket: string, query: URLSearchParams): void => {
    allow(query, 'prefix', 'maxResults', 'fields', 'pageToken', 'delimiter')
    const [prefix, after, delimiter] = [query.get('prefix') ?? '', query.get('pageToken') ?? '', query.get('delimiter') ?? '']
    // Folders are left out, not told as `prefixes`: no client of ours asks for them.
    const names = [...bucketOf(bucket).keys()].filter((name) => name.startsWith(prefix) && name > after && (delimiter === '' || !name.slice(prefix.length).includes(delimiter))).sort()
    const page = names.slice(0, Math.min(1000, Number(query.get('maxResults') ?? 1000)))
    const items = page.map((name) => withLink(request, bucket, describe(name, bucketOf(bucket).get(name) as Stored)))
    json(response, 200, { kind: 'storage#objects', ...(items.length === 0 ? {} : { items }), ...(names.length > page.length ? { nextPageToken: page.at(-1) } : {}) })
  }

  const uploadsOf = (response: ServerResponse, bucket: string, query: URLSearchParams): void => {
    allow(query, 'uploads', 'prefix', 'key-marker', 'upload-id-marker')
    bucketOf(bucket)
    const found = [...multis].filter(([, multi]) => multi.bucket === bucket && multi.name.startsWith(query.get('prefix') ?? ''))
    xml(response, `<ListMultipartUploadsResult><Bucket>${bucket}</Bucket><IsTruncated>false</IsTruncated>${found.map(([id, { name, initiated }]) =>
      `<Upload><Key>${xmlText(name)}</Key><UploadId>${id}</UploadId><StorageClass>STANDARD</StorageClass><Initiated>${initiated}</Initiated></Upload>`).join('')}</ListMultipartUploadsResult>`)
  }

  const multipart = async (request: IncomingMessage, response: ServerResponse, bucket: string, name: string, query: URLSearchParams): Promise<void> => {
    const body = await bodyOf(request)
    if (query.has('uploads')) {
      if (request.method !== 'POST' || body.length > 0) throw new Refusal(400, 'InvalidRequest', 'POST without a body begins an upload')
      bucketOf(bucket)
      checkName(name)
      const id = randomUUID()
      const metadata = Object.fromEntries(Object.entries(request.headers).filter(([key]) => key.startsWith('x-goog-meta-')).map(([key, value]) => [key.slice(12), String(value)]))
      multis.set(id, { bucket, name, about: { metadata, storageClass: String(request.headers['x-goog-storage-class'] ?? 'STANDARD') }, initiated: new Date().toISOString(), parts: new Map() })
      return xml(response, `<InitiateMultipartUploadResult><Bucket>${bucket}</Bucket><Key>${xmlText(name)}</Key><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`)
    }
    allow(query, 'uploadId', 'partNumber')
    const id = query.get('uploadId') ?? ''
    const multi = multis.get(id)
    if (multi === undefined || multi.bucket !== bucket || multi.name !== name) throw new Refusal(404, 'NoSuchUpload', 'The requested upload was not found.')
    if (request.method === 'DELETE') {
      multis.delete(id)
      response.writeHead(204)
      response.end()
      return
    }
    if (request.method === 'PUT') {
      const number = Number(query.get('partNumber'))
      if (!Number.isInteger(number) || number < 1 || number > 10_000) throw new Refusal(400, 'InvalidArgument', 'The part number must be from 1 to 10000.')
      const hash = /^crc32c=(\S+)$/.exec(String(request.headers['x-goog-hash'] ?? ''))?.[1]
      if (hash !== undefined && hash !== crcOf(body)) throw new Refusal(400, 'BadDigest', 'The CRC32C you specified did not match what we received.')
      // Of the content, as the service's are: a part that is sent again, because its answer was late, is the same part.
      const etag = `"${crcOf(body)}-${body.length}"`
      multi.parts.set(number, { data: body, etag })
      response.writeHead(200, { etag, 'x-goog-hash': `crc32c=${crcOf(body)}`, 'content-length': '0' })
      response.end()
      return
    }
    if (request.method !== 'POST') throw new Refusal(405, 'MethodNotAllowed', request.method ?? '')
    if (lying) {
      lying = false
      return xml(response, '<Error><Code>InternalError</Code><Message>We encountered an internal error. Please try again.</Message></Error>')
    }
    const wanted = [...body.toString().matchAll(/<Part><PartNumber>(\d+)<\/PartNumber><ETag>([^<]*)<\/ETag><\/Part>/g)].map(([, number, etag]) => ({ number: Number(number), etag: (etag ?? '').replaceAll('&quot;', '"') }))
    if (wanted.length === 0) throw new Refusal(400, 'MalformedXML', 'There must be parts.')
    const blocks = wanted.map(({ number, etag }, index) => {
      const part = multi.parts.get(number)
      if (part === undefined || part.etag !== etag) throw new Refusal(400, 'InvalidPart', `Part ${number} was not found or has another ETag.`)
      if (index > 0 && number <= (wanted[index - 1]?.number ?? 0)) throw new Refusal(400, 'InvalidPartOrder', 'Parts must be in order.')
      if (index < wanted.length - 1 && part.data.length < smallestPart) throw new Refusal(400, 'EntityTooSmall', 'Only the last part may be smaller than 5 MiB.')
      return part.data
    })
    multis.delete(id)
    const stored = keep(bucket, name, multi.about, Buffer.concat(blocks))
    xml(response, `<CompleteMultipartUploadResult><Bucket>${bucket}</Bucket><Key>${xmlText(name)}</Key><ETag>"x-${blocks.length}"</ETag></CompleteMultipartUploadResult>`, { 'x-goog-hash': `crc32c=${crcOf(stored.data)}`, 'x-goog-generation': stored.generation })
  }

  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', 'http://double')
    // Any JSON API of the house knows these two.
    if (url.searchParams.get('alt') === 'json') url.searchParams.delete('alt')
    url.searchParams.delete('prettyPrint')
    if (failing.count > 0) {
      failing.count -= 1
      throw new Refusal(failing.status, failing.status === 429 ? 'rateLimitExceeded' : 'backendError', 'Told to fail.')
    }
    if (token !== undefined && request.headers.authorization !== `Bearer ${token}`) throw new Refusal(401, 'authError', 'Invalid Credentials')
    const names = url.pathname.split('/').slice(1)
    const decoded = names.map(decodeURIComponent)
    if (names[0] === 'upload' && names[1] === 'session') return continueSession(request, response, names[2] ?? '')
    if (url.pathname.startsWith('/upload/storage/v1/b/') && names.length === 6 && names[5] === 'o') return upload(request, response, decoded[4] ?? '', url.searchParams)
    if (url.pathname.startsWith('/storage/v1/b/') && names[4] === 'o') {
      if (names.length === 5) return list(request, response, decoded[3] ?? '', url.searchParams)
      if (names.length === 6) return object(request, response, decoded[3] ?? '', decoded[5] ?? '', url.searchParams)
    } else if (names.length === 1 && url.searchParams.has('uploads')) return uploadsOf(response, decoded[0] ?? '', url.searchParams)
    else if (names.length > 1) return multipart(request, response, decoded[0] ?? '', decoded.slice(1).join('/'), url.searchParams)
    throw new Refusal(404, 'notFound', `the double has nothing at ${url.pathname}`)
  }

  const server = createServer((request, response) => {
    requests += 1
    serve(request, response).catch((error: unknown) => {
      if (response.headersSent || response.destroyed) return void response.destroy()
      const refusal = error instanceof Refusal ? error : new Refusal(500, 'internalError', String(error))
      const wait = failing.retryAfter === undefined ? {} : { 'retry-after': String(failing.retryAfter) }
      const isXml = !(request.url ?? '').includes('/storage/v1/') && !(request.url ?? '').startsWith('/upload/')
      request.resume()
      if (!isXml) return json(response, refusal.status, { error: { code: refusal.status, message: refusal.message, errors: [{ reason: refusal.reason, message: refusal.message }] } }, wait)
      const code = refusal.reason === 'notFound' ? 'NoSuchBucket' : refusal.reason
      response.writeHead(refusal.status, { 'content-type': 'application/xml', ...wait })
      response.end(`<?xml version='1.0' encoding='UTF-8'?><Error><Code>${code}</Code><Message>${xmlText(refusal.message)}</Message></Error>`)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    port,
    endpoint: `http://127.0.0.1:${port}`,
    failNext: (count, status, retryAfter) => { failing = { count, status, retryAfter } },
    lieOnce: () => { lying = true },
    requireToken: (next) => { token = next },
    corrupt: (on) => { corrupting = on },
    unfinished: () => multis.size + [...sessions.values()].filter(({ finished }) => finished === undefined).length,
    requests: () => requests,
    stop: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
