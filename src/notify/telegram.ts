import { z } from 'zod'
import type { ChannelKind } from './channel.js'
import { text, url, wholeNumber } from './fields.js'
import { post } from './http.js'
import { cut, plainText, signOf } from './wording.js'

const schema = z.object({
  bot_token: text.regex(/^[\w:-]+$/, 'the token that BotFather gave'),
  chat_id: z.union([z.number().int().transform(String), z.string().regex(/^(-?\d+|@\w+)$/)], 'the number of a chat, or @ and the name of a channel'),
  thread_id: wholeNumber(1, 2 ** 31).optional(),
  api_url: url.default('https://api.telegram.org'),
})

// Telegram takes 4096 characters.
const LONGEST = 4000

/** A message of a Telegram bot (https://core.telegram.org/bots/api#sendmessage), as plain text. */
export const telegramChannel: ChannelKind = {
  type: 'telegram',
  configSchema: schema,
  secretFields: ['bot_token'],
  open: (config) => {
    const { bot_token: token, chat_id, thread_id, api_url } = schema.parse(config)
    return {
      send: (message, { signal }) => post({
        url: `${api_url.replace(/\/+$/, '')}/bot${token}/sendMessage`, signal,
        body: JSON.stringify({
          chat_id, ...(thread_id === undefined ? {} : { message_thread_id: thread_id }),
          text: cut(`${signOf(message)} ${message.title}\n${plainText(message)}`, LONGEST),
          link_preview_options: { is_disabled: true },
          disable_notification: message.severity === 'info',
        }),
      }),
    }
  },
}
