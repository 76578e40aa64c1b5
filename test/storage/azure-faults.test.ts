import t from 'tap'
import { StorageSharedKeyCredential, ContainerClient } from '@azure/storage-blob'
import { faultSuite } from '../conformance/storage-faults.js'
import { startAzurite } from '../servers/azurite.js'

const server = await startAzurite()
t.teardown(server.stop)
await new ContainerClient(`${server.endpoint}/backups`, new StorageSharedKeyCredential(server.accountName, server.accountKey)).create()

await faultSuite(t, {
  name: 'Azure Blob (azurite)',
  type: 'azure_blob',
  port: server.port,
  config: (folder, port) => ({
    container_name: 'backups', account_name: server.accountName, account_key: server.accountKey, endpoint: server.endpoint.replace(String(server.port), String(port)), prefix: folder,
  }),
})
