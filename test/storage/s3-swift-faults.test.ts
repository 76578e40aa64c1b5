import t from 'tap'
import { faultSuite } from '../conformance/storage-faults.js'
import { makeBucket } from '../servers/buckets.js'
import { startSwift } from '../servers/swift.js'

const server = await startSwift()
t.teardown(() => server.stop())
await makeBucket(server, 'backups')
const keys = { bucket_name: 'backups', access_key_id: server.accessKey, secret_access_key: server.secretKey }

await faultSuite(t, {
  name: 'S3 on OpenStack Swift',
  type: 'aws_s3',
  port: server.port,
  config: (folder, port) => ({ ...keys, endpoint: `http://127.0.0.1:${port}`, prefix: folder }),
})
