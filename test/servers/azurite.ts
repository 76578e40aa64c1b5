import { randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import { freePort, serverDir, startServer, type Running } from './process.js'

export interface AzureServer extends Running {
  port: number
  accountName: string
  accountKey: string
  /** `http://127.0.0.1:PORT/ACCOUNT` */
  endpoint: string
  connectionString: string
}

/** Microsoft's emulator of the blob service, in memory, checking signatures and versions. */
export const startAzurite = async ({ loose = false }: { loose?: boolean } = {}): Promise<AzureServer> => {
  const dir = serverDir('azurite')
  const port = await freePort()
  const accountName = 'backupdtest'
  const accountKey = randomBytes(64).toString('base64')
  const running = await startServer({
    command: process.execPath,
    args: [
      createRequire(import.meta.url).resolve('azurite/dist/src/blob/main.js'), '--inMemoryPersistence', '--skipApiVersionCheck', '--disableTelemetry', '--silent',
      '--blobHost', '127.0.0.1', '--blobPort', String(port), ...(loose ? ['--loose'] : []),
    ],
    env: { AZURITE_ACCOUNTS: `${accountName}:${accountKey}` },
    cwd: dir,
    port,
    dir,
    sameAccount: true,
    comesFrom: 'the npm package azurite',
  })
  const endpoint = `http://127.0.0.1:${port}/${accountName}`
  const connectionString = `DefaultEndpointsProtocol=http;AccountName=${accountName};AccountKey=${accountKey};BlobEndpoint=${endpoint};`
  return { ...running, port, accountName, accountKey, endpoint, connectionString }
}
