import { Agent as HttpAgent, type AgentOptions } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

// Eight times what a socket reads at once by itself.
const readSize = 512 * 1024

type Connect = (options: object, callback?: (error: Error | null, stream: Duplex) => void) => Duplex | null | undefined

/**
 * Lets every connection of `agent` read into memory of its own, again and again. Node's HTTP parser copies the bodies anyway, so the
 * memory that a socket otherwise asks for at each read is used for a moment only; without that, and with larger reads, a download
 * takes half the processor time. See `onread` in https://nodejs.org/api/net.html#new-netsocketoptions.
 */
const readingInPlace = <Agent extends HttpAgent | HttpsAgent>(agent: Agent): Agent => {
  const connecting = agent as unknown as { createConnection: Connect }
  const connect = connecting.createConnection.bind(agent)
  connecting.createConnection = (options, callback) => connect({
    ...options,
    onread: {
      buffer: Buffer.allocUnsafeSlow(readSize),
      callback(this: Socket, length: number, buffer: Uint8Array): boolean {
        // What a socket does with a read when it has a listener and nothing buffered, as is the case for that of an HTTP client.
        this.emit('data', buffer.subarray(0, length))
        return true
      },
    },
  }, callback)
  return agent
}

/** Agents that keep connections alive, for bodies of any size. Whoever asks for them destroys them. */
export const createAgents = (options: AgentOptions = {}): { plain: HttpAgent; secure: HttpsAgent } => ({
  plain: readingInPlace(new HttpAgent({ keepAlive: true, ...options })),
  secure: readingInPlace(new HttpsAgent({ keepAlive: true, ...options })),
})
