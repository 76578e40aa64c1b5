import { Worker } from 'node:worker_threads'
import { asBuffer } from '../storage/bytes.js'
import { BackupdError, messageOf } from '../errors.js'
import type { Answer } from './thread.js'

/** What a thread is asked for, whatever else it has to know. */
export interface Job {
  bytes: Uint8Array
}

/** Threads that do jobs, each one at a time, in the order they were asked for. */
export interface Pool<J extends Job> {
  /** Takes the job's bytes away from the caller where they fill their whole ArrayBuffer, and copies them otherwise. */
  run(job: J): Promise<Buffer>
  /** Ends the threads; jobs that are not done fail. */
  close(): Promise<void>
}

interface Waiting {
  job: Job
  resolve: (bytes: Buffer) => void
  reject: (error: unknown) => void
}

const threadFailed = (why: string): BackupdError =>
  new BackupdError('compression.thread', `a compression thread ended: ${why}`, { retryable: true })

const transferable = ({ bytes }: Job): ArrayBuffer[] =>
  bytes.buffer instanceof ArrayBuffer && bytes.byteLength === bytes.buffer.byteLength && bytes.byteLength > 0 ? [bytes.buffer] : []

/** A pool of at most `size` threads that run the module `script`, each started when there is work for it. */
export const createPool = <J extends Job>(size: number, script: URL): Pool<J> => {
  const queue: Waiting[] = []
  const idle: Worker[] = []
  const busy = new Map<Worker, Waiting | undefined>()
  let closed = false

  const take = (worker: Worker): void => {
    const next = queue.shift()
    if (next === undefined) {
      idle.push(worker)
      // A pool that somebody forgot to close does not keep the process alive; waiting jobs do.
      worker.unref()
      return
    }
    busy.set(worker, next)
    worker.ref()
    worker.postMessage(next.job, transferable(next.job))
  }

  const lost = (worker: Worker, why: string): void => {
    const current = busy.get(worker)
    if (!busy.delete(worker)) return
    const at = idle.indexOf(worker)
    if (at >= 0) idle.splice(at, 1)
    current?.reject(threadFailed(why))
    if (queue.length > 0 && !closed) start()
  }

  const start = (): void => {
    const worker = new Worker(script)
    busy.set(worker, undefined)
    worker.on('message', ({ bytes, error }: Answer) => {
      const done = busy.get(worker)
      busy.set(worker, undefined)
      if (bytes === undefined) done?.reject(new Error(error))
      else done?.resolve(asBuffer(bytes))
      take(worker)
    })
    worker.on('error', (error) => lost(worker, messageOf(error)))
    worker.on('exit', (code) => lost(worker, `exit code ${code}`))
    take(worker)
  }

  return {
    run: (job) =>
      new Promise((resolve, reject) => {
        if (closed) return reject(threadFailed('the pool is closed'))
        queue.push({ job, resolve, reject })
        const worker = idle.pop()
        if (worker !== undefined) take(worker)
        else if (busy.size < size) start()
      }),
    close: async () => {
      closed = true
      for (const { reject } of queue.splice(0)) reject(threadFailed('the pool was closed'))
      await Promise.all([...busy.keys()].map((worker) => worker.terminate()))
    },
  }
}
