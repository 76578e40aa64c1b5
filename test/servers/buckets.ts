import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import type { S3Server } from './rgw.js'

/** A client of its own, independent of the code under test. */
export const rawClient = (server: Pick<S3Server, 'endpoint' | 'accessKey' | 'secretKey'>): S3Client =>
  new S3Client({
    endpoint: server.endpoint, region: 'us-east-1', forcePathStyle: true,
    credentials: { accessKeyId: server.accessKey, secretAccessKey: server.secretKey },
  })

/** Makes a bucket. */
export const makeBucket = async (server: Pick<S3Server, 'endpoint' | 'accessKey' | 'secretKey'>, name: string, { lock = false } = {}): Promise<void> => {
  const client = rawClient(server)
  await client.send(new CreateBucketCommand({ Bucket: name, ObjectLockEnabledForBucket: lock }))
  client.destroy()
}
