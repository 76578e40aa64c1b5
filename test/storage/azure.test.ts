import t from 'tap'
import { StorageSharedKeyCredential, ContainerClient } from '@azure/storage-blob'
import { storageSuite } from '../conformance/storage.js'
import { startAzurite } from '../servers/azurite.js'

const server = await startAzurite()
t.teardown(server.stop)
const container = new ContainerClient(`${server.endpoint}/backups`, new StorageSharedKeyCredential(server.accountName, server.accountKey))
await container.create()

await storageSuite(t, {
  name: 'Azure Blob (azurite), account key',
  type: 'azure_blob',
  leavesInvisible: true,
  config: (folder) => ({ container_name: 'backups', account_name: server.accountName, account_key: server.accountKey, endpoint: server.endpoint, prefix: folder }),
})
