import { isIP } from 'node:net'
import { z } from 'zod'
import { abortError, messageOf, throwIfAborted, type BackupdError } from '../errors.js'
import type { ChannelKind, Message } from './channel.js'
import { networkFailure, notifyError } from './failure.js'
import { line, mailAddresses, oneOf, text, wholeNumber } from './fields.js'
import { plainText } from './wording.js'

const loopback = (host: string): boolean => host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))

const schema = z.object({
  host: line,
  port: wholeNumber(1, 65_535).optional(),
  tls: oneOf(['starttls', 'implicit', 'none']).default('starttls'),
  username: line.optional(),
  password: text.optional(),
  from: mailAddresses,
  to: mailAddresses,
  ca: text.optional(),
}).refine(({ tls, password, host }) => tls !== 'none' || password === undefined || loopback(host), 'a password needs tls=starttls or tls=implicit: without, everybody on the way could read it')

const ports = { starttls: 587, implicit: 465, none: 25 } as const

// Milliseconds that the server may be silent; the whole is bounded by the caller's signal.
const SILENCE = 10_000

const meaning = (host: string, error: unknown): BackupdError => {
  const { code, responseCode, response } = error as { code?: unknown; responseCode?: unknown; response?: unknown }
  const said = `${host}: ${typeof response === 'string' ? response : messageOf(error)}`
  if (code === 'EAUTH') return notifyError('notify.auth', `the mail server ${said}`, { cause: error })
  if (typeof responseCode === 'number') {
    // 4xx: later may be better (RFC 5321, 4.2.1); 5xx: never.
    return responseCode < 500 ? notifyError('notify.unavailable', `the mail server ${said}`, { cause: error }) : notifyError('notify.rejected', `the mail server ${said}`, { cause: error })
  }
  if (code === 'ETLS') return notifyError('notify.tls', `the mail server ${said}`, { cause: error, hint: 'The server offers no TLS, or its certificate is not trusted (set ca, or NODE_EXTRA_CA_CERTS); tls=implicit is for port 465, tls=none for a relay on this machine.' })
  return networkFailure(`the mail server ${host}`, error)
}

const mailOf = (message: Message, from: string, to: string): Record<string, unknown> => ({
  from, to,
  subject: `[backupd] ${message.severity}: ${message.title}`,
  text: plainText(message),
  date: new Date(message.raised_at),
  // Sent again, it is the same mail.
  messageId: `<${message.id.replaceAll(/[^\w.-]/g, '-')}@backupd.${message.sender.host.replaceAll(/[^\w.-]/g, '-')}>`,
  headers: { 'Auto-Submitted': 'auto-generated', 'X-Backupd-Event': message.event, 'X-Backupd-Severity': message.severity },
  disableFileAccess: true,
  disableUrlAccess: true,
})

/** Mail over SMTP, with STARTTLS unless told otherwise. */
export const emailChannel: ChannelKind = {
  type: 'email',
  configSchema: schema,
  secretFields: ['password'],
  open: (config) => {
    const { host, port, tls, username, password, from, to, ca } = schema.parse(config)
    return {
      send: async (message, { signal }) => {
        throwIfAborted(signal)
        const { createTransport } = await import('nodemailer')
        const transport = createTransport({
          host, port: port ?? ports[tls],
          secure: tls === 'implicit', requireTLS: tls === 'starttls', ignoreTLS: tls === 'none',
          ...(username === undefined ? {} : { auth: { user: username, pass: password ?? '' } }),
          tls: { ...(ca === undefined ? {} : { ca }), minVersion: 'TLSv1.2' },
          dnsTimeout: SILENCE, connectionTimeout: SILENCE, greetingTimeout: SILENCE, socketTimeout: SILENCE,
        })
        let onAbort = (): void => undefined
        const aborted = new Promise<never>((_resolve, reject) => {
          onAbort = () => reject(abortError(signal))
          signal.addEventListener('abort', onAbort, { once: true })
        })
        try {
          const sending = transport.sendMail(mailOf(message, from, to))
          sending.catch(() => undefined)
          await Promise.race([sending, aborted])
        } catch (error) {
          throw signal.aborted ? abortError(signal) : meaning(host, error)
        } finally {
          signal.removeEventListener('abort', onAbort)
          transport.close()
        }
      },
    }
  },
}
