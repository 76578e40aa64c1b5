import { createHash } from 'node:crypto'
import type { Message } from './channel.js'
import { urlChannel } from './url-channel.js'
import { cut, plainText } from './wording.js'

const LONGEST = 8_000

// What a check makes of it: `log` leaves its state as it is.
const signalOf = ({ event, severity }: Message): string => {
  if (event === 'start') return '/start'
  if (event === 'success' || event === 'first_success' || event === 'recovery') return ''
  return event === 'test' || severity !== 'critical' ? '/log' : '/fail'
}

/** A UUID that all pings of one run have in common, from which the check sees how long it took. */
const runId = (backupId: string): string => {
  const hex = createHash('sha256').update(backupId).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

const slug = (name: string): string => name.toLowerCase().replaceAll(/[^a-z0-9_-]+/g, '-').replaceAll(/^-+|-+$/g, '')

/** Where the ping goes: `{schedule}` in the URL is the schedule's name as a slug. */
export const pingUrl = (base: string, message: Message): string => {
  const target = new URL(base.replaceAll('{schedule}', slug(message.schedule?.name ?? 'backupd')))
  target.pathname = target.pathname.replace(/\/+$/, '') + signalOf(message)
  const backupId = message.execution?.['backup_id']
  if (typeof backupId === 'string') target.searchParams.set('rid', runId(backupId))
  return target.href
}

/** Pings in the way of healthchecks.io (https://healthchecks.io/docs/http_api/) on start, success and failure. */
export const healthchecksChannel = urlChannel('healthchecks', (target, message) => ({
  url: pingUrl(target, message), contentType: 'text/plain; charset=utf-8', body: cut(`${message.title}\n${plainText(message)}`, LONGEST),
}))
