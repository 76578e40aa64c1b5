import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { updateNotifier, type Notifier } from '../../catalog/notifiers.js'
import { BackupdError, messageOf } from '../../errors.js'
import type { Message } from '../../notify/channel.js'
import { redact } from '../../secret.js'
import { version } from '../../version.js'
import { catalogTime } from '../settings/configure.js'
import { sendMessage } from './deliver.js'
import type { Environment } from '../environment.js'

const testMessage = (notifier: Notifier, now: Date): Message => ({
  id: `test-${randomUUID()}`,
  event: 'test',
  severity: 'info',
  title: `Test of the notifier ${notifier.name}`,
  message: 'This is what alerts of backupd look like here. Nothing has happened.',
  schedule: null, storage: null, execution: null, details: {},
  raised_at: now.toISOString(),
  sender: { program: 'backupd', version, host: hostname() },
})

/** Sends a message through a notifier, also one that is switched off, and notes the result in its row. Fails with `notify.*`, `config.*` or `secret.*`. */
export const testNotifier = async (env: Environment, notifier: Notifier): Promise<{ milliseconds: number }> => {
  const { db } = env.catalog
  const now = await catalogTime(db)
  const began = performance.now()
  try {
    await sendMessage(env, notifier, testMessage(notifier, now))
  } catch (error) {
    const code = error instanceof BackupdError ? error.code : 'internal'
    await updateNotifier(db, notifier.id, { last_status: 'failed', last_error: redact(`${code}: ${messageOf(error)}`).slice(0, 1000) })
    throw error
  }
  await updateNotifier(db, notifier.id, { last_status: 'sent', last_sent_at: now, last_error: null })
  return { milliseconds: Math.round(performance.now() - began) }
}
