import { parentPort } from 'node:worker_threads'
import { messageOf } from '../errors.js'
import { work, type Job } from './jobs.js'

/** An answer of a thread; `error` is set when the job failed. */
export interface Answer {
  bytes?: Uint8Array
  error?: string
}

const port = parentPort
port?.on('message', (job: Job) => {
  work(job).then(
    // Handed over, not copied: the thread has no further use for it.
    (bytes) => port.postMessage({ bytes } satisfies Answer, [bytes.buffer as ArrayBuffer]),
    (error: unknown) => port.postMessage({ error: messageOf(error) } satisfies Answer),
  )
})
