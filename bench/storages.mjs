// The storages against servers on this machine: throughput as a ratio to plain clients of the same protocol, the effect of several
// parts in flight over a slow line, and memory. For S3, GCS and Azure beside curl (one request, no checksums, no parts) also rclone, where
// it is installed: a client that sends parts and checksums as we do. The servers are those of the tests (scripts/test-tools.sh installs them).
// Usage: node --import=@tapjs/typescript/import bench/storages.mjs [MEGABYTES [ROUNDS [NAME ...]]], NAME being s3, gcs, azure, proftpd, vsftpd or sftp
import { spawn } from 'node:child_process'
import { createHash, createHmac, randomFillSync } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { BlobSASPermissions, ContainerClient, ContainerSASPermissions, generateBlobSASQueryParameters, StorageSharedKeyCredential } from '@azure/storage-blob'
import { startAzurite } from '../test/servers/azurite.ts'
import { makeBucket } from '../test/servers/buckets.ts'
import { startProftpd } from '../test/servers/proftpd.ts'
import { startProxy } from '../test/servers/proxy.ts'
import { startRgw } from '../test/servers/rgw.ts'
import { startSshd } from '../test/servers/sshd.ts'
import { startVsftpd } from '../test/servers/vsftpd.ts'
import { programPath } from '../test/support/cli.ts'

process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true'
const megabytes = Number(process.argv[2] ?? 1000)
const rounds = Number(process.argv[3] ?? 3)
const wanted = process.argv.slice(4)
const bytes = megabytes * 1_000_000
const home = mkdtempSync(join(tmpdir(), 'backupd-bench-'))
const file = join(home, 'object')
const dist = dirname(programPath())
const transferScript = fileURLToPath(new URL('storages-transfer.mjs', import.meta.url))

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]

/** Runs a command to its end; wall seconds and what it printed. */
const run = async (command, args, input = '', options = {}) => {
  const started = performance.now()
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options })
  const output = []
  let errors = ''
  child.stdout?.on('data', (block) => output.push(block))
  child.stderr.on('data', (block) => (errors += block))
  child.stdin.on('error', () => undefined)
  child.stdin.end(input)
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve))
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${errors.slice(-500)}`)
  return { seconds: (performance.now() - started) / 1000, output: Buffer.concat(output).toString() }
}

/** One transfer by the program's own storage. */
const ours = async (action, { type, config, key }, parallel) => {
  const { output } = await run(process.execPath, [transferScript], JSON.stringify({ dist, type, config, parallel, action, key, file }))
  const result = JSON.parse(output)
  if (result.bytes !== bytes) throw new Error(`${action} through ${type}: ${result.bytes} bytes of ${bytes}`)
  return result
}

// Credentials and addresses come on stdin, as everywhere. -f: an HTTP error is a failure.
const curl = async (lines) => (await run('curl', ['-sS', '-f', '-K', '-'], lines.map(([name, value]) => (value === undefined ? name : `${name} = ${JSON.stringify(value)}`)).join('\n'))).seconds

const hasRclone = await run('rclone', ['version']).then(() => true, () => false)

/** rclone, with its remote described in the environment: parts as large and as many at once as ours. Its start is counted, as curl's is. */
const rclone = (settings) => {
  const given = { ...settings, chunk_size: '8M', upload_concurrency: '3' }
  const env = { ...process.env, RCLONE_CONFIG: '/dev/null', ...Object.fromEntries(Object.entries(given).map(([name, value]) => [`RCLONE_CONFIG_BENCH_${name.toUpperCase()}`, value])) }
  // Its S3 client refuses to work with this one.
  delete env.AWS_CA_BUNDLE
  const timed = async (args) => (await run('rclone', ['--retries', '1', ...args], '', { env, stdio: ['pipe', 'ignore', 'pipe'] })).seconds
  return {
    upload: () => timed(['--ignore-times', 'copyto', file, 'BENCH:backups/rclone']),
    download: () => timed(['cat', 'BENCH:backups/rclone']),
  }
}

// Signature version 4 in the query, as any S3 client makes it: docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
const presigned = (method, { endpoint, accessKey, secretKey }, path) => {
  const url = new URL(path, endpoint)
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, '')
  const scope = `${time.slice(0, 8)}/us-east-1/s3/aws4_request`
  for (const [name, value] of [['X-Amz-Algorithm', 'AWS4-HMAC-SHA256'], ['X-Amz-Credential', `${accessKey}/${scope}`], ['X-Amz-Date', time], ['X-Amz-Expires', '3600'], ['X-Amz-SignedHeaders', 'host']]) url.searchParams.set(name, value)
  const request = [method, url.pathname, url.searchParams.toString(), `host:${url.host}\n`, 'host', 'UNSIGNED-PAYLOAD'].join('\n')
  const text = ['AWS4-HMAC-SHA256', time, scope, createHash('sha256').update(request).digest('hex')].join('\n')
  const hmac = (key, data) => createHmac('sha256', key).update(data).digest()
  const key = [time.slice(0, 8), 'us-east-1', 's3', 'aws4_request'].reduce(hmac, `AWS4${secretKey}`)
  return `${url}&X-Amz-Signature=${hmac(key, text).toString('hex')}`
}

const ftpWith = async (server) => {
  const path = `${server.root}/plain`
  // vsftpd asks for the session of the control connection; curl gives it with TLS 1.2.
  const common = [['user', `${server.username}:${server.password}`], ['ssl-reqd'], ['cacert', server.ca], ['tls-max', '1.2'], ['disable-epsv'], ['url', `ftp://${server.host}:${server.port}/${server.username === 'anonymous' ? 'plain' : `%2F${path.slice(1)}`}`]]
  const config = { host: server.host, port: server.port, username: server.username, password: server.password, tls: 'explicit', ca_path: server.ca, remote_path: server.username === 'anonymous' ? 'backups' : `${server.root}/backups` }
  return {
    stop: server.stop, port: server.port, plainName: 'curl, FTP with TLS 1.2',
    ours: { type: 'ftp', key: 'bench/object', config },
    plain: { upload: () => curl([...common, ['upload-file', file]]), download: () => curl([...common, ['output', '/dev/null']]) },
  }
}

// In a process of its own, because the proxy works in this one; it ends with this one.
const gcsDouble = async () => {
  const script = `const { startGcsDouble } = await import(${JSON.stringify(new URL('../test/servers/gcs-double.ts', import.meta.url).href)})
    const { port } = await startGcsDouble()
    console.log(port)
    process.stdin.resume().on('end', () => process.exit())`
  const child = spawn(process.execPath, ['--import=@tapjs/typescript/import', '--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'inherit'] })
  const port = await new Promise((resolve, reject) => child.on('exit', () => reject(new Error('the double did not start'))).stdout.once('data', (line) => resolve(Number(line))))
  return { port, endpoint: `http://127.0.0.1:${port}`, stop: () => child.stdin.end() }
}

const services = {
  s3: async () => {
    const server = await startRgw()
    await makeBucket(server, 'backups')
    const config = (endpoint) => ({ bucket_name: 'backups', endpoint, access_key_id: server.accessKey, secret_access_key: server.secretKey })
    return {
      stop: server.stop, port: server.port, plainName: 'curl with a presigned URL, one PUT',
      ours: { type: 'aws_s3', key: 'bench/object', config: config(server.endpoint) },
      through: (port) => config(`http://127.0.0.1:${port}`),
      plain: {
        upload: () => curl([['url', presigned('PUT', server, '/backups/plain')], ['upload-file', file]]),
        download: () => curl([['url', presigned('GET', server, '/backups/plain')], ['output', '/dev/null']]),
      },
      rclone: rclone({ type: 's3', provider: 'Ceph', endpoint: server.endpoint, access_key_id: server.accessKey, secret_access_key: server.secretKey, no_check_bucket: 'true' }),
    }
  },
  gcs: async () => {
    const server = await gcsDouble()
    const config = (endpoint) => ({ bucket_name: 'backups', api_endpoint: endpoint })
    const session = async () => (await fetch(`${server.endpoint}/upload/storage/v1/b/backups/o?uploadType=resumable&name=plain`, { method: 'POST', body: '{}' })).headers.get('location')
    return {
      stop: server.stop, port: server.port, plainName: 'curl, one resumable PUT; the server is a double in JavaScript',
      ours: { type: 'gcs', key: 'bench/object', config: config(server.endpoint) },
      through: (port) => config(`http://127.0.0.1:${port}`),
      plain: {
        upload: async () => curl([['url', await session()], ['upload-file', file], ['header', `Content-Range: bytes 0-${bytes - 1}/${bytes}`], ['output', '/dev/null']]),
        download: () => curl([['url', `${server.endpoint}/storage/v1/b/backups/o/plain?alt=media`], ['output', '/dev/null']]),
      },
      rclone: rclone({ type: 'google cloud storage', endpoint: `${server.endpoint}/storage/v1/`, anonymous: 'true', bucket_policy_only: 'true', no_check_bucket: 'true' }),
    }
  },
  azure: async () => {
    const server = await startAzurite()
    const credential = new StorageSharedKeyCredential(server.accountName, server.accountKey)
    await new ContainerClient(`${server.endpoint}/backups`, credential).create()
    const config = (endpoint) => ({ account_name: server.accountName, account_key: server.accountKey, container_name: 'backups', endpoint })
    const sas = generateBlobSASQueryParameters({ containerName: 'backups', blobName: 'plain', permissions: BlobSASPermissions.parse('rcw'), expiresOn: new Date(Date.now() + 3_600_000) }, credential)
    const url = `${server.endpoint}/backups/plain?${sas}`
    const all = generateBlobSASQueryParameters({ containerName: 'backups', permissions: ContainerSASPermissions.parse('rcwdl'), expiresOn: new Date(Date.now() + 3_600_000) }, credential)
    return {
      stop: server.stop, port: server.port, plainName: 'curl with a SAS, one PUT; the server is azurite, in JavaScript and in memory',
      ours: { type: 'azure_blob', key: 'bench/object', config: config(server.endpoint) },
      through: (port) => config(`http://127.0.0.1:${port}/${server.accountName}`),
      plain: {
        upload: () => curl([['url', url], ['upload-file', file], ['header', 'x-ms-blob-type: BlockBlob'], ['header', 'x-ms-version: 2021-12-02']]),
        download: () => curl([['url', url], ['output', '/dev/null']]),
      },
      rclone: rclone({ type: 'azureblob', sas_url: `${server.endpoint}/backups?${all}` }),
    }
  },
  proftpd: async () => ftpWith(await startProftpd({ tls: 'explicit' })),
  vsftpd: async () => ftpWith(await startVsftpd({ tls: 'explicit' })),
  sftp: async () => {
    const server = await startSshd()
    const args = ['-q', '-b', '-', '-i', server.plainKey, '-P', String(server.port), '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null', '-o', 'IdentityAgent=none', `${server.username}@${server.host}`]
    const batch = async (line) => (await run('sftp', args, `${line}\n`)).seconds
    return {
      stop: server.stop, port: server.port, plainName: 'sftp of OpenSSH',
      ours: { type: 'sftp', key: 'bench/object', config: { host: server.host, port: server.port, username: server.username, password: server.password, host_key_sha256: server.fingerprint, remote_path: `${server.root}/backups` } },
      plain: { upload: () => batch(`put "${file}" "${server.root}/plain"`), download: () => batch(`get "${server.root}/plain" "${join(home, 'fetched')}"`) },
    }
  },
}

const rate = (seconds) => `${(megabytes / seconds).toFixed(0)} MB/s`

/** Ours and the plain clients in turn, so that what else the machine does hits all alike. */
const compare = async (name, service) => {
  const clients = { plain: service.plain, ...(service.rclone !== undefined && hasRclone ? { rclone: service.rclone } : {}) }
  for (const action of ['upload', 'download']) {
    const times = []
    for (let round = 0; round < rounds; round += 1) {
      const others = {}
      for (const [client, actions] of Object.entries(clients)) others[client] = await actions[action]()
      times.push({ others, ...(await ours(action, service.ours, 3)) })
    }
    const against = Object.keys(clients).map((client) => {
      const ratios = times.map(({ others, seconds }) => others[client] / seconds)
      return `${client} ${rate(median(times.map(({ others }) => others[client])))}, ratio median ${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`
    })
    console.log(`${name.padEnd(8)} ${action.padEnd(8)} ours ${rate(median(times.map(({ seconds }) => seconds)))}, ${median(times.map(({ cpu }) => cpu)).toFixed(2)} s of processor time, peak memory ${Math.max(...times.map(({ memory }) => memory)).toFixed(0)} MB; ${against.join('; ')}`)
  }
}

/** 50 ms each way and 20 MB/s for each connection and direction. */
const overSlowLine = async (name, service) => {
  const proxy = await startProxy({ port: service.port })
  proxy.set({ latency: 50, rate: 20_000_000 })
  try {
    for (const action of ['upload', 'download']) {
      const found = {}
      for (const parallel of [1, 3, 4, 8]) found[parallel] = await ours(action, { ...service.ours, config: service.through(proxy.port) }, parallel)
      console.log(`${name.padEnd(8)} ${action.padEnd(8)} ${Object.entries(found).map(([parallel, { seconds, memory }]) => `${parallel} in flight: ${rate(seconds)}, ${memory.toFixed(0)} MB`).join('; ')}; 4 against 1: ${(found[1].seconds / found[4].seconds).toFixed(2)} times as fast`)
    }
  } finally {
    await proxy.stop()
  }
}

try {
  const block = randomFillSync(Buffer.alloc(1_000_000))
  const handle = openSync(file, 'w')
  for (let written = 0; written < megabytes; written += 1) {
    block.writeUInt32BE(written)
    writeSync(handle, block)
  }
  closeSync(handle)
  console.log(`node ${process.version}, ${cpus().length} cores (${cpus()[0].model}), ${megabytes} MB of random bytes, servers on the same machine over loopback, ${rounds} rounds in turn, 3 parts in flight; ratio above 1: faster than that client; load ${loadavg()[0].toFixed(1)}`)
  if (!hasRclone) console.log('rclone is not installed, so S3, GCS and Azure are compared with curl only')
  for (const [name, start] of Object.entries(services)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue
    const service = await start()
    try {
      console.log(`\n${name}: plain client is ${service.plainName}`)
      await compare(name, service)
      if (service.through !== undefined) {
        console.log(`${name}: through a proxy with 50 ms of latency each way and 20 MB/s for each connection`)
        await overSlowLine(name, service)
      }
    } catch (error) {
      console.error(`${name}: ${error.message}`)
      process.exitCode = 1
    } finally {
      await service.stop()
    }
  }
} finally {
  rmSync(home, { recursive: true, force: true })
}
process.exit()
