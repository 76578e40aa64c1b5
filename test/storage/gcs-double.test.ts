import t from 'tap'
import { storageSuite } from '../conformance/storage.js'
import { startGcsDouble } from '../servers/gcs-double.js'

// Against a double: see there why.
const double = await startGcsDouble()
t.teardown(() => double.stop())

await storageSuite(t, {
  name: 'GCS on a double',
  type: 'gcs',
  config: (folder) => ({ bucket_name: 'backups', api_endpoint: double.endpoint, prefix: folder }),
})
