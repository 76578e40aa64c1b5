import type { Transform } from 'node:stream'
import type { ByteSource } from '../storage/storage.js'

const drained = (transform: Transform): Promise<void> =>
  new Promise((resolve) => {
    const done = (): void => {
      transform.off('drain', done).off('close', done)
      resolve()
    }
    transform.on('drain', done).on('close', done)
  })

/** What `transform` makes of `source`. An error of the source arrives as it is, one of the transform as `failure` of it; both are closed at the end. */
export async function* throughTransform(
  source: ByteSource,
  transform: Transform,
  failure: (error: unknown) => Error,
): AsyncGenerator<Buffer, void, void> {
  let sourceFailure: { error: unknown } | undefined
  const feed = async (): Promise<void> => {
    try {
      for await (const chunk of source) {
        if (transform.destroyed) return
        if (!transform.write(chunk)) await drained(transform)
        if (transform.destroyed) return
      }
      transform.end()
    } catch (error) {
      sourceFailure = { error }
      transform.destroy(error as Error)
    }
  }
  const feeding = feed()
  try {
    for await (const chunk of transform) yield chunk as Buffer
  } catch (error) {
    throw sourceFailure === undefined ? failure(error) : sourceFailure.error
  } finally {
    transform.destroy()
    await feeding
  }
}
