import { BackupdError } from '../errors.js'
import { abortable } from '../storage/bytes.js'
import type { ByteSource } from '../storage/storage.js'

export interface WatchdogOptions {
  /** Milliseconds in which at least one byte has to move. */
  timeout: number
  /** Told when the time is up, so that what hangs can be ended: the process that gives the bytes, or the write that takes them. */
  onStall?: (error: BackupdError) => void
  /** Bytes that have moved elsewhere on the same line, such as those stored. While that number changes the line is not stuck: a throttled write may take long for one frame. */
  elsewhere?: () => number
  signal: AbortSignal
}

/**
 * `source`, ended with `pipeline.stalled` when no byte moved for `timeout` milliseconds. It makes no difference who is slow, the source or
 * the one who reads: a run in which nothing moves is stuck. A reader that is stuck cannot be told through the stream, therefore `onStall`.
 */
export async function* withWatchdog(source: ByteSource, { timeout, onStall, elsewhere, signal }: WatchdogOptions): AsyncGenerator<Uint8Array, void, void> {
  const stalled = new AbortController()
  let seen = elsewhere?.()
  const ring = (): void => {
    const moved = elsewhere?.()
    if (moved !== seen) {
      seen = moved
      timer.refresh()
      return
    }
    const error = new BackupdError('pipeline.stalled', `no byte moved for ${Math.round(timeout / 100) / 10} seconds`, {
      retryable: true,
      hint: 'Look for locks on the server (pg_stat_activity) and at the network and the storage; BACKUPD_STALL_TIMEOUT sets how long to wait.',
    })
    stalled.abort(error)
    onStall?.(error)
  }
  const timer = setTimeout(ring, timeout)
  try {
    for await (const chunk of abortable(source, AbortSignal.any([signal, stalled.signal]))) {
      // An empty chunk is no progress.
      if (chunk.length > 0) timer.refresh()
      yield chunk
      if (chunk.length > 0) timer.refresh()
    }
  } finally {
    clearTimeout(timer)
  }
}
