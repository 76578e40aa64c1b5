import { parentPort } from 'node:worker_threads'
import { messageOf } from '../errors.js'

/** What a pool sends to a thread. Both buffers are shared memory. */
export interface Order<W> {
  work: W
  input: Uint8Array
  /** Bytes of `input` that count. */
  length: number
  output: Uint8Array
}

/** What a thread sends back: how many bytes it wrote to `output`, or why it could not. */
export type Answer = { length: number } | { error: string }

/** Does `work` on `input`; gives the number of bytes written to `output`. */
export type Perform<W> = (work: W, input: Uint8Array, output: Buffer) => Promise<number>

/** Does the jobs that a pool sends to this thread, one after the other. */
export const serve = <W>(perform: Perform<W>): void => {
  const port = parentPort
  port?.on('message', ({ work, input, length, output }: Order<W>) => {
    perform(work, Buffer.from(input.buffer, 0, length), Buffer.from(output.buffer)).then(
      (written) => port.postMessage({ length: written } satisfies Answer),
      (error: unknown) => port.postMessage({ error: messageOf(error) } satisfies Answer),
    )
  })
}
