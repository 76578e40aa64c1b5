import t from 'tap'
import { faultSuite } from '../conformance/storage-faults.js'
import { makeBucket } from '../servers/buckets.js'
import { startRgw } from '../servers/rgw.js'

const server = await startRgw()
t.teardown(() => server.stop())
await makeBucket(server, 'backups')

await faultSuite(t, {
  name: 'S3 on Ceph RADOS Gateway',
  type: 'aws_s3',
  port: server.port,
  config: (folder, port) => ({
    bucket_name: 'backups', endpoint: `http://127.0.0.1:${port}`, access_key_id: server.accessKey, secret_access_key: server.secretKey, prefix: folder,
  }),
})
