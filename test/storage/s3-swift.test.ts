import t from 'tap'
import { storageSuite } from '../conformance/storage.js'
import { makeBucket } from '../servers/buckets.js'
import { startSwift } from '../servers/swift.js'

const server = await startSwift()
t.teardown(() => server.stop())
await makeBucket(server, 'backups')
const keys = { bucket_name: 'backups', access_key_id: server.accessKey, secret_access_key: server.secretKey }

await storageSuite(t, {
  name: 'S3 on OpenStack Swift',
  type: 'aws_s3',
  // It writes two databases on disk for each object.
  many: 1010,
  config: (folder) => ({ ...keys, endpoint: server.endpoint, prefix: folder }),
})
