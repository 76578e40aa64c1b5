import { throwIfAborted } from '../errors.js'
import type { Log } from '../log.js'
import { storageError } from './failure.js'
import { openSession, request, sftpFailure, type SftpLogin, type SftpSession } from './sftp-session.js'
import { within } from './wait.js'

/** Ends one request: with its error, or with what it gave. */
export type Done<T> = (error?: Error | null, value?: T) => void

/** The one connection of a storage, opened when it is needed and again after it was lost. */
export interface SftpLink {
  /** The connection as it is now; it may get lost at any moment. */
  session(signal: AbortSignal): Promise<SftpSession>
  /** One request, on the current connection or on the one given; its failure is one of our errors. */
  ask<T>(what: string, signal: AbortSignal, start: (session: SftpSession, done: Done<T>) => void, on?: SftpSession): Promise<T>
  close(): Promise<void>
}

/** A link to the server of `login`. One connection serves everything: its cost is the cipher, which a second one would share the processor with. */
export const sftpLink = (login: SftpLogin, log: Log): SftpLink => {
  let current: Promise<SftpSession> | undefined
  const closing = new AbortController()

  const open = (): Promise<SftpSession> => {
    const opening = openSession(login, log, closing.signal)
    const forget = (): void => {
      if (current === opening) current = undefined
    }
    opening.then(({ gone }) => (gone.aborted ? forget() : gone.addEventListener('abort', forget, { once: true })), forget)
    return opening
  }

  const session = async (signal: AbortSignal): Promise<SftpSession> => {
    throwIfAborted(signal)
    if (closing.signal.aborted) throw storageError('storage.failed', 'the storage was closed')
    const opened = (current ??= open())
    const { gone } = await within(opened, { signal })
    if (!gone.aborted) return opened
    throw gone.reason
  }

  const ask = async <T>(what: string, signal: AbortSignal, start: (session: SftpSession, done: Done<T>) => void, on?: SftpSession): Promise<T> => {
    try {
      const used = on ?? (await session(signal))
      return await request<T>(used, signal, (done) => start(used, done))
    } catch (error) {
      throw sftpFailure(error, what)
    }
  }

  return {
    session, ask,
    close: async () => {
      const last = current
      closing.abort(storageError('storage.failed', 'the storage was closed'))
      await last?.then((used) => used.close(), () => undefined)
    },
  }
}
