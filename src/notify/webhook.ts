import { createHmac } from 'node:crypto'
import { z } from 'zod'
import type { ChannelKind } from './channel.js'
import { line, text, url } from './fields.js'
import { post } from './http.js'

const schema = z.object({ url, secret: text.min(8, 'at least 8 characters').optional(), authorization: line.optional() })

/** `sha256=` and the HMAC-SHA256, in hexadecimal digits, of the timestamp, a dot and the body. */
export const signature = (secret: string, timestamp: string, body: string): string =>
  `sha256=${createHmac('sha256', secret).update(`${timestamp}.${body}`).digest('hex')}`

/** The message as JSON, signed where there is a secret. */
export const webhookChannel: ChannelKind = {
  type: 'webhook',
  configSchema: schema,
  secretFields: ['url', 'secret', 'authorization'],
  open: (config) => {
    const { url: target, secret, authorization } = schema.parse(config)
    return {
      send: (message, { signal }) => {
        const body = JSON.stringify(message)
        const timestamp = String(Math.floor(Date.now() / 1000))
        return post({
          url: target, body, signal,
          headers: {
            'x-backupd-event': message.event,
            'x-backupd-delivery': message.id,
            'x-backupd-timestamp': timestamp,
            ...(secret === undefined ? {} : { 'x-backupd-signature': signature(secret, timestamp, body) }),
            ...(authorization === undefined ? {} : { authorization }),
          },
        })
      },
    }
  },
}
