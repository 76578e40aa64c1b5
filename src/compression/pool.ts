import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { BackupdError, messageOf } from '../errors.js'
import type { Answer, Order, Perform } from './thread.js'

/** One thing to do: `work` says what, as the thread script understands it; `input` is copied, and the result is at most `room` bytes. */
export interface Job<W> {
  work: W
  input: Uint8Array
  room: number
}

/** Threads that do jobs, each one at a time, started in the order they were asked for. */
export interface Pool<W> {
  run(job: Job<W>): Promise<Buffer>
  /** Ends the threads; jobs that are not done fail. */
  close(): Promise<void>
}

interface Waiting<W> extends Job<W> {
  resolve: (bytes: Buffer) => void
  reject: (error: unknown) => void
}

/** A thread with the memory that it shares with us. Kept from job to job: handing buffers over leaves garbage that threads are slow to collect. */
interface Slot<W> {
  worker: Worker
  input: Uint8Array
  output: Uint8Array
  current: Waiting<W> | undefined
}

const threadFailed = (why: string): BackupdError =>
  new BackupdError('compression.thread', `a compression thread ended: ${why}`, { retryable: true })

const withRoom = (memory: Uint8Array, room: number): Uint8Array =>
  memory.length >= room ? memory : new Uint8Array(new SharedArrayBuffer(room))

/** Jobs below this size are done on the spot: that takes less than a millisecond, starting a thread takes 30. */
const SMALL = 128 * 1024

/**
 * A pool of threads that run the module `script`, which serves `perform`. Each is started when there is work for it; there are as many
 * as `concurrency` and the processor allow.
 */
export const createPool = <W>(concurrency: number, script: URL, perform: Perform<W>): Pool<W> => {
  const size = Math.max(1, Math.min(concurrency, availableParallelism()))
  const queue: Waiting<W>[] = []
  const slots = new Set<Slot<W>>()
  let closed = false

  const next = (slot: Slot<W>): void => {
    slot.current = queue.shift()
    if (slot.current === undefined) {
      // A pool that somebody forgot to close does not keep the process alive; waiting jobs do.
      slot.worker.unref()
      return
    }
    const { work, input, room } = slot.current
    slot.input = withRoom(slot.input, input.length)
    slot.output = withRoom(slot.output, room)
    slot.input.set(input)
    slot.worker.ref()
    slot.worker.postMessage({ work, input: slot.input, length: input.length, output: slot.output } satisfies Order<W>)
  }

  const lost = (slot: Slot<W>, why: string): void => {
    if (!slots.delete(slot)) return
    slot.current?.reject(threadFailed(why))
    if (queue.length > 0 && !closed) start()
  }

  const start = (): void => {
    const worker = new Worker(script)
    const slot: Slot<W> = { worker, input: new Uint8Array(), output: new Uint8Array(), current: undefined }
    slots.add(slot)
    worker.on('message', (answer: Answer) => {
      if ('error' in answer) slot.current?.reject(new Error(answer.error))
      else slot.current?.resolve(Buffer.from(slot.output.subarray(0, answer.length)))
      next(slot)
    })
    worker.on('error', (error) => lost(slot, messageOf(error)))
    worker.on('exit', (code) => lost(slot, `exit code ${code}`))
    next(slot)
  }

  const onTheSpot = async ({ work, input, room }: Job<W>): Promise<Buffer> => {
    const output = Buffer.allocUnsafe(room)
    return output.subarray(0, await perform(work, input, output))
  }

  const inThread = (job: Job<W>): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      queue.push({ ...job, resolve, reject })
      const idle = [...slots].find(({ current }) => current === undefined)
      if (idle !== undefined) next(idle)
      else if (slots.size < size) start()
    })

  return {
    run: (job) => {
      if (closed) return Promise.reject(threadFailed('the pool is closed'))
      return job.input.length + job.room < 2 * SMALL ? onTheSpot(job) : inThread(job)
    },
    close: async () => {
      closed = true
      for (const { reject } of queue.splice(0)) reject(threadFailed('the pool was closed'))
      await Promise.all([...slots].map(({ worker }) => worker.terminate()))
    },
  }
}
