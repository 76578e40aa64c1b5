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

/** Does the jobs that a pool sends to this thread, one after the other; `perform` writes to `output` and gives the number of bytes. */
export const serve = <W>(perform: (work: W, input: Buffer, output: Buffer) => Promise<number>): void => {
  const port = parentPort
  port?.on('message', ({ work, input, length, output }: Order<W>) => {
    perform(work, Buffer.from(input.buffer, 0, length), Buffer.from(output.buffer)).then(
      (written) => port.postMessage({ length: written } satisfies Answer),
      (error: unknown) => port.postMessage({ error: messageOf(error) } satisfies Answer),
    )
  })
}
