import t from 'tap'
import { faultSuite } from '../conformance/storage-faults.js'
import { startGcsDouble } from '../servers/gcs-double.js'

// Against a double: see there why. One chunk in flight: the resumable sessions of the JSON API.
const double = await startGcsDouble()
t.teardown(() => double.stop())

await faultSuite(t, {
  name: 'GCS on a double, sequential',
  type: 'gcs',
  parallelUploads: 1,
  port: double.port,
  config: (folder, port) => ({ bucket_name: 'backups', api_endpoint: `http://127.0.0.1:${port}`, prefix: folder }),
})
