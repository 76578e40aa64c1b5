import { hostname } from 'node:os'
import { catalogReason } from '../../catalog/failures.js'
import { jsonObject } from '../../catalog/json.js'
import type { Notifier } from '../../catalog/notifiers.js'
import { claimNotification, isSuperseded, markDelayed, markFailed, markSent, markSkipped, type Notification, type Outgoing } from '../../catalog/outbox.js'
import { alertSeverities } from '../../catalog/statuses.js'
import { resolveConfig } from '../../encryption/secrets.js'
import { BackupdError, messageOf } from '../../errors.js'
import type { Message } from '../../notify/channel.js'
import { notifyError } from '../../notify/failure.js'
import { channelKindOf, openChannel } from '../../notify/registry.js'
import { redact } from '../../secret.js'
import { version } from '../../version.js'
import type { Environment } from '../environment.js'
import { resolving } from '../sources.js'

/** How long a receiver may take. Milliseconds. */
export const SEND_TIMEOUT = 10_000
/** What could not be sent for so long is given up. Milliseconds. */
export const GIVE_UP = 24 * 3_600_000

// A claim outlives its sending by enough to note the result.
const LEASE = SEND_TIMEOUT + 20_000
const FIRST_WAIT = 15_000
const LONGEST_WAIT = 3_600_000
const KEPT_ERROR = 1_000

type Delivering = Pick<Environment, 'config' | 'catalog' | 'log' | 'workerId' | 'signal'>

const about = (value: unknown): { id: number; name: string } | null => {
  const { id, name } = jsonObject(value)
  return typeof id === 'number' && typeof name === 'string' ? { id, name } : null
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '')

/** The message of a row, whose payload may be anybody's. */
export const messageFor = ({ id, event, severity, payload, created_at }: Pick<Notification, 'id' | 'event' | 'severity' | 'payload' | 'created_at'>): Message => {
  const said = jsonObject(payload)
  const execution = jsonObject(said['execution'])
  return {
    id: `${id}-${created_at.getTime()}`,
    event,
    severity: alertSeverities.find((one) => one === severity) ?? 'info',
    title: text(said['title']).replaceAll(/\p{Cc}+/gu, ' ') || event,
    message: text(said['message']),
    schedule: about(said['schedule']),
    storage: about(said['storage']),
    execution: Object.keys(execution).length === 0 ? null : execution,
    details: jsonObject(said['details']),
    raised_at: created_at.toISOString(),
    sender: { program: 'backupd', version, host: hostname() },
  }
}

/** Sends `message` to a notifier, within `SEND_TIMEOUT`. Fails with `notify.*`, `config.*` or `secret.*`. */
export const sendMessage = async (env: Pick<Environment, 'config' | 'signal'>, notifier: Notifier, message: Message, limit = SEND_TIMEOUT): Promise<void> => {
  const config = await resolveConfig(jsonObject(notifier.config), channelKindOf(notifier.type).secretFields, resolving(env))
  const channel = openChannel(notifier.type, config)
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(notifyError('notify.timeout', `notifier ${notifier.name} has not taken the message within ${limit / 1000} seconds`)), limit)
  try {
    await channel.send(message, { signal: AbortSignal.any([late.signal, env.signal]) })
  } finally {
    clearTimeout(timer)
  }
}

/** Before attempt `attempts` + 1: 15 s, doubled each time up to an hour, a fifth more or less; never less than the receiver asked for, up to an hour. */
export const waitAfter = (attempts: number, error: BackupdError): number => {
  const asked = error.details?.['retryAfter']
  const own = Math.min(FIRST_WAIT * 2 ** (attempts - 1), LONGEST_WAIT) * (0.8 + 0.4 * Math.random())
  return Math.round(typeof asked === 'number' ? Math.max(Math.min(asked, LONGEST_WAIT), own) : own)
}

const known = (error: unknown): BackupdError => (error instanceof BackupdError ? error : new BackupdError('internal', messageOf(error)))

const note = async (env: Delivering, outgoing: Outgoing, error: BackupdError): Promise<void> => {
  const { db } = env.catalog
  const { notification, notifier } = outgoing
  const said = redact(`${error.code}: ${error.message}`).slice(0, KEPT_ERROR)
  const facts = { notifier: notifier.name, notification: notification.id, event: notification.event, attempt: notification.attempts, error: said }
  // Stopped by us: no fault of the receiver, and no attempt that counts.
  if (env.signal.aborted) return markDelayed(db, outgoing, said, 0)
  const age = Date.now() - notification.created_at.getTime()
  // A reference that leads nowhere here may lead somewhere for another process.
  const again = error.retryable || error.code === 'config.env_missing' || error.code === 'config.file'
  if (!again || age > GIVE_UP) {
    env.log.error(facts, 'an alert could not be sent and is given up')
    return markFailed(db, outgoing, said)
  }
  const wait = waitAfter(notification.attempts, error)
  env.log.warn({ ...facts, again_in: Math.round(wait / 1000) }, 'an alert could not be sent yet')
  return markDelayed(db, outgoing, said, wait)
}

/** Sends what was claimed, and notes what came of it. */
export const deliver = async (env: Delivering, outgoing: Outgoing): Promise<void> => {
  const { notification, notifier } = outgoing
  try {
    // The receiver was away when the run began; that it began is no news when its end is known.
    if (notification.event === 'start' && (await isSuperseded(env.catalog.db, outgoing))) {
      return await markSkipped(env.catalog.db, outgoing, 'the run has ended meanwhile')
    }
    await sendMessage(env, notifier, messageFor(notification))
  } catch (error) {
    return note(env, outgoing, known(error))
  }
  env.log.debug({ notifier: notifier.name, notification: notification.id, event: notification.event }, 'alert sent')
  await markSent(env.catalog.db, outgoing)
}

/** How many receivers are talked to at a time. */
const AT_ONCE = 4

/** Sends all that is due, to several notifiers at a time, until nothing is left or `stop` is aborted. Never throws. */
export const deliverDue = async (env: Delivering, stop: AbortSignal): Promise<number> => {
  let sent = 0
  const line = async (): Promise<void> => {
    while (!stop.aborted) {
      const outgoing = await claimNotification(env.catalog.db, env.workerId, LEASE)
      if (outgoing === undefined) return
      await deliver(env, outgoing)
      sent += 1
    }
  }
  const results = await Promise.allSettled(Array.from({ length: AT_ONCE }, line))
  for (const result of results) if (result.status === 'rejected') env.log.warn({ error: catalogReason(result.reason) }, 'alerts could not be looked at')
  return sent
}
