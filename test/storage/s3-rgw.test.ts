import t from 'tap'
import { storageSuite } from '../conformance/storage.js'
import { makeBucket } from '../servers/buckets.js'
import { startRgw } from '../servers/rgw.js'

const server = await startRgw()
t.teardown(() => server.stop())
await makeBucket(server, 'backups')

await storageSuite(t, {
  name: 'S3 on Ceph RADOS Gateway',
  type: 'aws_s3',
  config: (folder) => ({ bucket_name: 'backups', endpoint: server.endpoint, access_key_id: server.accessKey, secret_access_key: server.secretKey, prefix: folder }),
})
