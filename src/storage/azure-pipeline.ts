import type * as Sdk from '@azure/storage-blob'
import type { createAgents } from './agents.js'

type Agents = ReturnType<typeof createAgents>

/** How requests are signed and sent: one attempt each, because retries are ours, over connections of our own. */
export const azurePipeline = (sdk: typeof Sdk, credential: Sdk.StorageSharedKeyCredential | Sdk.AnonymousCredential, { plain, secure }: Agents): Sdk.Pipeline => {
  const pipeline = sdk.newPipeline(credential, { retryOptions: { maxTries: 1 } })
  pipeline.factories.push({
    create: (next) => ({
      sendRequest: (request) => {
        // Where a proxy is set in the environment, the SDK has set the agent for that.
        request.agent ??= request.url.startsWith('https:') ? secure : plain
        return next.sendRequest(request)
      },
    }),
  })
  return pipeline
}
