import t from 'tap'
import { storageSuite } from '../conformance/storage.js'
import { startGcsDouble } from '../servers/gcs-double.js'

// Against a double: see there why. One chunk in flight: the resumable sessions of the JSON API.
const double = await startGcsDouble()
t.teardown(() => double.stop())

await storageSuite(t, {
  name: 'GCS on a double, sequential',
  type: 'gcs',
  parallelUploads: 1,
  // A session cannot be listed; the service drops it after a week.
  sweepsItself: true,
  config: (folder) => ({ bucket_name: 'backups', api_endpoint: double.endpoint, prefix: folder }),
})
