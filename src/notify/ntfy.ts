import { z } from 'zod'
import type { ChannelKind } from './channel.js'
import { line, url } from './fields.js'
import { post } from './http.js'
import { cut, plainText } from './wording.js'

const schema = z.object({
  url: url.default('https://ntfy.sh'),
  topic: z.string('text').regex(/^[-_A-Za-z0-9]{1,64}$/, '1 to 64 letters, digits, - and _'),
  token: line.optional(),
  username: line.optional(),
  password: line.optional(),
})

const priorities = { critical: 5, warning: 4, info: 3 } as const
const tags = { critical: 'rotating_light', warning: 'warning', info: 'information_source' } as const

// The server takes 4096 bytes.
const LONGEST = 3000

/** A message for ntfy (https://docs.ntfy.sh/publish/#publish-as-json). Who knows a topic can read it, so it is a secret. */
export const ntfyChannel: ChannelKind = {
  type: 'ntfy',
  configSchema: schema,
  secretFields: ['topic', 'token', 'password'],
  open: (config) => {
    const { url: target, topic, token, username, password } = schema.parse(config)
    const basic = username === undefined ? undefined : `Basic ${Buffer.from(`${username}:${password ?? ''}`).toString('base64')}`
    const authorization = token === undefined ? basic : `Bearer ${token}`
    return {
      send: (message, { signal }) => post({
        url: target, signal,
        headers: authorization === undefined ? {} : { authorization },
        body: JSON.stringify({
          topic, title: message.title, message: cut(plainText(message), LONGEST), priority: priorities[message.severity], tags: [tags[message.severity], message.event],
        }),
      }),
    }
  },
}
