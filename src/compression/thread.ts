import { parentPort } from 'node:worker_threads'
import { messageOf } from '../errors.js'

/** An answer of a thread; `error` is set when the job failed. */
export interface Answer {
  bytes?: Uint8Array
  error?: string
}

/** Does the jobs that a pool sends to this thread, one after the other. The bytes that `work` gives must fill an ArrayBuffer of their own. */
export const serve = <J>(work: (job: J) => Promise<Uint8Array>): void => {
  const port = parentPort
  port?.on('message', (job: J) => {
    work(job).then(
      // Handed over, not copied: the thread has no further use for it.
      (bytes) => port.postMessage({ bytes } satisfies Answer, [bytes.buffer as ArrayBuffer]),
      (error: unknown) => port.postMessage({ error: messageOf(error) } satisfies Answer),
    )
  })
}
